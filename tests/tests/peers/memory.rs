//! The size of the new root, and the memory of the move.
use std::fs;
use std::os::fd::OwnedFd;

use repot_snapshot::{Atime, Rules, difference, snapshot};
use repot_tests::intercept::{Calls, Verdict};
use repot_tests::programs;
use repot_tests::rehome::{AFTER_BOOT, run};
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::stage::{Prepared, prepare, prepare_with};
use repot_tests::trees::{Fs, hostile};
use repot_tests::twin::Twin;

use super::{MIB, dir, each, file};

#[test]
fn row_07_what_does_not_fit_is_seen_before_anything_is_touched() {
    for limit in ["size=1m", "nr_inodes=20"] {
        let prepared = prepare(Fs::Tmpfs, |stage| {
            stage.install(&format!("mode=move\n{limit}\n"));
            stage.plant(&hostile());
        });
        // Not a move that fails and is rolled back: none begins.
        let changing = vec![libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_ftruncate, libc::SYS_mknodat];
        let mut running = prepared.start(&Setup { calls: Calls::These(changing), ..Setup::default() });
        let mut changes = 0;
        let end = running.wait_until(DEADLINE, None, &mut |call| {
            changes += u32::from(call.number != libc::SYS_execve && call.program == 1);
            Verdict::Continue
        });
        assert_eq!((end, changes), (End::Init("ready".into()), 0), "{}", running.log());
        assert!(running.log().contains(limit.split_once('=').expect("a key").0), "{}", running.log());
        let rules = Rules { atime: Atime::Ignored, ..AFTER_BOOT };
        let now = snapshot(running.root()).expect("a snapshot");
        assert_eq!(difference(&prepared.before, &now, rules), "", "with {limit}");
        let device = |table: &repot_tests::mounts::Table| table["/"][0].what.device.clone();
        assert_eq!(device(&prepared.mounts), device(&running.mounts()), "with {limit}");
    }
}

#[test]
fn row_08_contents_of_mnt_are_moved_and_freed() {
    each(
        |stage| {
            stage.plant(&[
                dir("mnt").mode(0o710).owned(3, 4).times((1, 2), (3, 4)),
                file("mnt/large", 2 * MIB),
                dir("mnt/dir"),
                file("mnt/dir/file", 5),
            ]);
        },
        |moved| {
            let mnt = &moved.after[b"mnt".as_slice()];
            assert_eq!((mnt.mode, mnt.uid, mnt.gid, mnt.mtime), (0o710, 3, 4, (3, 4)));
            assert_eq!(moved.after[b"mnt/large".as_slice()].size, 2 * MIB);
        },
    );
}

/// At every point between two calls that free memory, both trees together have what the old one had before,
/// and little more.
#[test]
fn row_11_peak_memory_does_not_grow_with_the_largest_file() {
    const FREEING: [i64; 2] = [libc::SYS_ftruncate, libc::SYS_unlinkat];
    for threads in [1, 2] {
        let prepared = prepare(Fs::Tmpfs, |stage| {
            stage.install(&format!("mode=move\nthreads={threads}\n"));
            stage.plant(&[file("large", 64 * MIB), file("large too", 20 * MIB + 5), file("small", 5)]);
        });
        let used = |root: &OwnedFd| {
            let room = rustix::fs::fstatfs(root).expect("statfs");
            (room.f_blocks - room.f_bfree) * 4096
        };
        let before = used(&prepared.view);
        let (mut most, mut asked) = (0, 0);
        let mut running = prepared.start(&Setup { calls: Calls::These(FREEING.into()), ..Setup::default() });
        let pid = running.pid();
        let end = running.wait_until(DEADLINE, None, &mut |_| {
            let twins = Twin::of(pid, &prepared.view);
            if let Some(new) = twins.tops().iter().map(used).max() {
                asked += 1;
                most = most.max(used(&prepared.view) + new);
            }
            Verdict::Continue
        });
        assert_eq!(end, End::Init("ready".into()), "{}", running.log());
        assert!(asked > 40, "looked {asked} times");
        let extra = most - before;
        let limit = threads * 2 * MIB + MIB / 2;
        assert!(extra < limit, "{} KiB more than the tree with {threads} threads", extra >> 10);
    }
}

#[test]
fn row_21_memory_of_the_mover_does_not_grow_with_the_number_of_files() {
    let prepared = prepare(Fs::Ramfs, |stage| {
        stage.install("mode=move\n");
        let tree: Vec<_> = (0..3000).map(|number| file(&format!("file {number}"), 40_000)).collect();
        stage.plant(&tree);
    });
    let moved = run(prepared, &Setup { calls: Calls::These(vec![]), ..Setup::default() });
    moved.check();
    let peak = moved.running.peak().expect("measured");
    assert!(peak < 3 << 10, "{peak} KiB");
}

#[test]
fn row_24_small_program_and_memory_that_does_not_grow_with_a_directory() {
    let size = fs::metadata(programs::repot_init()).expect("the program").len();
    assert!(size < 400_000, "{size} bytes");
    let peak = |count: u32| {
        let prepared: Prepared = prepare_with(Fs::Ramfs, &[], |stage| {
            stage.install("mode=move\nthreads=2\n");
            repot_tests::trees::crowd(stage.root(), count);
        });
        let moved = run(prepared, &Setup { calls: Calls::These(vec![]), ..Setup::default() });
        moved.running.peak().expect("measured")
    };
    let (few, many) = (peak(10), peak(30_000));
    assert!(many < few + 256, "{few} KiB for a few entries, {many} KiB for many");
}
