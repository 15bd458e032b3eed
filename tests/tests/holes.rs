//! Sparse files, however long: they move and come back in a time that depends on their data.
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use repot_tests::intercept::{Calls, Verdict};
use repot_tests::sandbox::{DEADLINE, End, Running, Setup};
use repot_tests::stage::{Prepared, prepare};
use repot_tests::trees::Fs;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

const TIB: u64 = 1 << 40;
/// The largest file, less the last page, which nobody can write whole.
const LARGEST: u64 = i64::MAX as u64 - 4095;

/// A file: name, size, offset and length of its data.
type Sparse = (&'static str, u64, Vec<(u64, u64)>);

fn files(size: u64) -> Vec<Sparse> {
    let page = 4096;
    let many = |count: u64| (0..count).map(|at| (at * (size / count) / page * page, page)).collect();
    vec![
        ("empty", size, vec![]),
        ("start", size, vec![(0, 10_000)]),
        ("second", size, vec![(1 << 20, page)]),
        ("middle", size, vec![(size / 2, 3 << 20)]),
        ("odd", size - 77, vec![(page, page), (size / 3 / page * page, 5 * page), (size - 1000, 923)]),
        ("end", size, vec![(size - page, page)]),
        ("many", size, many(3000)),
        ("linked", size, vec![(size / 4, 2 << 20), (size / 2, page)]),
    ]
}

fn byte(at: u64) -> u8 {
    u8::try_from(at / 4096 % 251).expect("small") + 1
}

fn plant(prepared: &Prepared, files: &[Sparse]) {
    for (name, size, data) in files {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file =
            File::from(openat(&prepared.view, *name, flags, Mode::from_raw_mode(0o640)).expect("a file"));
        file.set_len(*size).expect("its length");
        for &(start, length) in data {
            for at in (start..start + length).step_by(4096) {
                let length = (start + length - at).min(4096);
                file.write_all_at(&vec![byte(at); usize::try_from(length).expect("a page")], at)
                    .expect("data");
            }
        }
        if *name == "linked" {
            let none = rustix::fs::AtFlags::empty();
            rustix::fs::linkat(&prepared.view, *name, &prepared.view, "again", none).expect("a link");
        }
    }
}

fn check(root: impl AsFd, files: &[Sparse], log: &str) {
    for (name, size, data) in files {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = File::from(openat(&root, *name, flags, Mode::empty()).expect("the file"));
        let meta = file.metadata().expect("its status");
        assert_eq!(meta.len(), *size, "{name}\n{log}");
        assert_eq!(meta.nlink(), if *name == "linked" { 2 } else { 1 }, "{name}\n{log}");
        let pages: u64 = data.iter().map(|(start, length)| (start % 4096 + length).div_ceil(4096)).sum();
        assert_eq!(meta.blocks(), pages * 8, "{name}\n{log}");
        for &(start, length) in data {
            for at in (start..start + length).step_by(4096) {
                let mut found = vec![0; usize::try_from((start + length - at).min(4096)).expect("a page")];
                file.read_exact_at(&mut found, at).expect("data");
                assert!(found.iter().all(|&found| found == byte(at)), "{name} at {at}\n{log}");
            }
        }
    }
}

/// Moves, or with `fails` rolls back once everything has moved. `map` takes cachestat away.
fn moved(fs: Fs, files: &[Sparse], config: &str, fails: bool, map: bool) -> (Prepared, Running, Duration) {
    const CACHESTAT: i64 = 451;
    let prepared = prepare(fs, |stage| stage.install(&format!("mode=move\n{config}")));
    plant(&prepared, files);
    let mut calls = vec![libc::SYS_pivot_root, libc::SYS_chroot];
    if map {
        calls.push(CACHESTAT);
    }
    let calls = Calls::These(calls);
    let start = Instant::now();
    let mut running = prepared.start(&Setup { calls, ..Setup::default() });
    let mut left = fails;
    let end = running.wait_until(DEADLINE, None, &mut |call| match call.number {
        CACHESTAT if map => Verdict::Fail(Errno::NOSYS),
        libc::SYS_pivot_root if left => Verdict::Fail(Errno::INVAL),
        libc::SYS_chroot if left => {
            left = false;
            Verdict::Fail(Errno::IO)
        }
        _ => Verdict::Continue,
    });
    assert_eq!(end, End::Init("ready".into()), "{}", running.log());
    let log = running.log();
    assert!(
        log.contains(if fails { "bind: move failed (switch: chroot" } else { "move: as configured" }),
        "{log}"
    );
    (prepared, running, start.elapsed())
}

#[test]
fn long_files_move_in_no_time() {
    for fs in Fs::ALL {
        for size in [16 * TIB, LARGEST] {
            let (_, running, time) = moved(fs, &files(size), "", false, false);
            check(running.root(), &files(size), &running.log());
            // The holes of one of them alone took minutes by the chunk.
            assert!(time < Duration::from_secs(20), "{fs:?}: {time:?}");
            println!("{fs:?} {size}: {time:?}");
        }
    }
}

#[test]
fn and_come_back() {
    for fs in Fs::ALL {
        for size in [16 * TIB, LARGEST] {
            let (prepared, running, time) = moved(fs, &files(size), "", true, false);
            check(&prepared.view, &files(size), &running.log());
            assert!(time < Duration::from_secs(20), "{fs:?}: {time:?}");
            println!("{fs:?} {size}: {time:?}");
        }
    }
}

#[test]
fn wiped_ones_too() {
    for fs in Fs::ALL {
        let (_, running, _) = moved(fs, &files(16 * TIB), "wipe=yes\n", false, false);
        check(running.root(), &files(16 * TIB), &running.log());
    }
}

/// Before 6.5 the page cache is read by mincore(2).
#[test]
fn without_cachestat() {
    for fails in [false, true] {
        let files = files(8 << 30);
        let (prepared, running, _) = moved(Fs::Ramfs, &files, "", fails, true);
        if fails {
            check(&prepared.view, &files, &running.log());
        } else {
            check(running.root(), &files, &running.log());
        }
    }
}

/// Data near one end is found soon even then.
#[test]
fn without_cachestat_by_the_allocated_bytes() {
    let files: Vec<_> = files(TIB)
        .into_iter()
        .filter(|(name, ..)| ["empty", "start", "second", "end"].contains(name))
        .collect();
    let (_, running, time) = moved(Fs::Ramfs, &files, "", false, true);
    check(running.root(), &files, &running.log());
    assert!(time < Duration::from_secs(10), "{time:?}");
}
