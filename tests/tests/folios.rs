//! Large folios only change the speed: nothing is different afterwards, and nothing depends on them.
use repot_snapshot::{Snapshot, difference, snapshot};
use repot_tests::intercept::{Calls, Verdict};
use repot_tests::mounts::Table;
use repot_tests::rehome::{AFTER_BOOT, run};
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::stage::{Stage, prepare};
use repot_tests::trees::Fs;
use rustix::io::Errno;

/// How often the init changed the folio size, with the result of the move and the mounts at that time.
struct Seen {
    times: u32,
    before: Snapshot,
    after: Snapshot,
    mounts: Table,
}

/// Enough files above the size from which copies are timed, so that both ways are tried.
fn large_files(stage: &Stage) {
    for number in 0..24 {
        stage.file(&format!("large {number}"), &vec![number; (1 << 20) + 77 * usize::from(number)]);
    }
}

fn moved(fail: bool, build: impl FnOnce(&Stage) + Send) -> Seen {
    let prepared = prepare(Fs::Ramfs, |stage| {
        stage.install("mode=move\n");
        build(stage);
    });
    let calls = Calls::These(vec![libc::SYS_fspick]);
    let mut running = prepared.start(&Setup { calls, ..Setup::default() });
    let mut times = 0;
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        let asked = call.number == libc::SYS_fspick;
        times += u32::from(asked);
        if asked && fail { Verdict::Fail(Errno::NOMEM) } else { Verdict::Continue }
    });
    assert_eq!(end, End::Init("ready".into()), "{}", running.log());
    let after = snapshot(running.root()).expect("a snapshot");
    Seen { times, before: prepared.before, after, mounts: running.mounts() }
}

impl Seen {
    fn check(&self) {
        let said = difference(&self.before, &self.after, AFTER_BOOT);
        assert_eq!(said, "");
        let options = &self.mounts["/"][0].what.super_options;
        assert!(!options.contains("huge"), "{options}");
    }
}

/// The first kernel that has folios of the size of a write.
fn has_them() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(14))
}

#[test]
fn the_option_is_restored() {
    let seen = moved(false, large_files);
    assert_eq!(seen.times > 0, has_them());
    seen.check();
}

#[test]
fn a_kernel_that_refuses_the_option_moves_all_the_same() {
    moved(true, large_files).check();
}

/// Ranges of one file copied in parallel: each byte arrives, both if the user requested large folios and if
/// they are tried.
#[test]
fn several_threads_copy_one_file() {
    for config in [
        "threads=2\nhuge=within_size\n",
        "threads=8\nhuge=within_size\n",
        "threads=4\n",
        "threads=1\nhuge=within_size\n",
    ] {
        let pages = |count: u32| {
            (0..count).flat_map(|page| [page.to_le_bytes(); 1024]).flatten().collect::<Vec<u8>>()
        };
        let moved = run(
            prepare(Fs::Ramfs, |stage| {
                stage.install(&format!("mode=move\n{config}"));
                stage.file("one", &pages(40 << 8));
                stage.file("two", &pages((24 << 8) + 1)[3..]);
                stage.file("three", &pages(17 << 8));
                std::fs::hard_link(stage.path("three"), stage.path("again")).expect("a link");
            }),
            &Setup::default(),
        );
        moved.check();
    }
}

#[test]
fn holes_are_not_filled() {
    let seen = moved(false, |stage| {
        large_files(stage);
        let file = std::fs::File::create(stage.path("hole")).expect("a file");
        file.set_len(8 << 20).expect("a hole");
    });
    assert_eq!(seen.times, 0);
    seen.check();
}
