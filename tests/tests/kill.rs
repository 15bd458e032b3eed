//! The mover killed at random points: every byte is in at least one tree.
use std::time::{Duration, Instant};

use repot::CHUNK;
use repot_tests::intercept::Calls;
use repot_tests::kill::{Torn, kill_after, kill_before_call};
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::stage::{Prepared, prepare};
use repot_tests::trees::{Data, Fs, Plant, What, one_of_each};

fn prepared(fs: Fs, threads: u64) -> Prepared {
    prepared_with(fs, threads, "")
}

fn prepared_with(fs: Fs, threads: u64, config: &str) -> Prepared {
    prepare(fs, |stage| {
        // Every byte counts here, also those of repot itself.
        stage.install(&format!("mode=move\nkeep=init\nthreads={threads}\n{config}"));
        stage.plant(&one_of_each());
        let file = |path: &str, len| Plant {
            path: path.into(),
            what: What::File { len, data: vec![Data { at: 0, len }] },
            meta: Default::default(),
        };
        stage.plant(&[
            file("large", 9 << 20),
            file("a/large too", (5 << 20) + 4097),
            file("a/b/one chunk", 1 << 20),
        ]);
        let first = b"a/large too".to_vec();
        stage.plant(&[Plant { what: What::HardLink(first), ..file("a/b/linked", 0) }]);
    })
}

/// Pseudorandom numbers, the same ones each time.
fn numbers() -> impl FnMut(u64) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

fn check(prepared: &Prepared, torn: &Torn, threads: u64, what: &str) {
    // One chunk per thread; the program itself cannot be truncated, so it is copied whole.
    let most = (CHUNK + 4096) * threads
        + repot_tests::programs::repot_init().metadata().map_or(0, |meta| meta.len());
    let said = torn.complaints(&prepared.before, most);
    assert!(said.is_empty(), "{what}:\n{said}");
}

#[test]
fn killed_before_any_call_every_byte_is_in_one_tree() {
    let setup = || Setup { calls: Calls::All, ..Setup::default() };
    let mut number = numbers();
    // With one thread, every run makes the same calls, so a number selects a point of the move.
    for (fs, threads) in [(Fs::Ramfs, 1), (Fs::Tmpfs, 1)] {
        let whole = prepared(fs, threads);
        let mut running = whole.start(&setup());
        let mut calls = 0;
        let end = running.wait_until(DEADLINE, None, &mut |call| {
            calls = calls.max(if call.program == 1 { call.nth } else { 0 });
            repot_tests::intercept::Verdict::Continue
        });
        assert_eq!(end, End::Init("ready".into()), "{}", running.log());
        let mut halfway = 0;
        for _ in 0..80 {
            let (nth, prepared) = (number(calls), prepared(fs, threads));
            let Some(torn) = kill_before_call(&prepared, prepared.start(&setup()), nth) else { continue };
            halfway += u32::from(torn.new.len() > 1 && torn.old.len() > 1);
            check(
                &prepared,
                &torn,
                threads,
                &format!("{fs:?}, {threads} threads, before call {nth} of {calls}"),
            );
        }
        assert!(halfway > 10, "only {halfway} kills met the move half-way");
    }
}

#[test]
fn killed_at_any_time_every_byte_is_in_one_tree() {
    let mut number = numbers();
    let mut halfway = 0;
    // Large folios let several threads copy one file.
    let folios = "huge=within_size\n";
    for (fs, threads, config) in [
        (Fs::Ramfs, 2, ""),
        (Fs::Tmpfs, 1, ""),
        (Fs::Tmpfs, 2, ""),
        (Fs::Ramfs, 2, folios),
        (Fs::Ramfs, 4, folios),
    ] {
        let whole = prepared_with(fs, threads, config);
        let started = Instant::now();
        let mut running = whole.start(&Setup::default());
        assert_eq!(running.wait(), End::Init("ready".into()), "{}", running.log());
        let most = u64::try_from(started.elapsed().as_micros()).expect("a short time").max(1);
        for _ in 0..20 {
            let (delay, prepared) = (number(most), prepared_with(fs, threads, config));
            let running = prepared.start(&Setup::default());
            let Some(torn) = kill_after(&prepared, running, Duration::from_micros(delay)) else { continue };
            halfway += u32::from(torn.new.len() > 1 && torn.old.len() > 1);
            check(&prepared, &torn, threads, &format!("{fs:?}, {threads} threads, after {delay} µs"));
        }
    }
    assert!(halfway > 3, "only {halfway} kills met the move half-way");
}
