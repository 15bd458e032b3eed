//! A panic and the end of memory are errors like others: repot takes the next method.
use std::time::Duration;

use repot_snapshot::{Atime, Rules, difference, snapshot};
use repot_tests::intercept::{Call, Calls, Verdict};
use repot_tests::mounts::carried;
use repot_tests::programs;
use repot_tests::rehome::AFTER_BOOT;
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::stage::{Prepared, prepare};
use repot_tests::trees::{Fs, one_of_each};

fn prepared(fs: Fs, config: &str) -> Prepared {
    prepare(fs, |stage| {
        stage.install(&format!("mode=move\nonerror=poweroff\n{config}"));
        stage.program("bin/init", programs::helper());
        stage.mount(Fs::Tmpfs, "disk/data");
        stage.plant(&one_of_each());
    })
}

/// Runs on an `fs` with a kernel that gives impossible answers, chosen by `lie` for calls with this number.
fn with_a_kernel_that_lies(
    fs: Fs,
    number: i64,
    mut lie: impl FnMut(&Call) -> Option<i64>,
) -> (End, String, bool) {
    let prepared = prepared(fs, "threads=2\n");
    let mut running = prepared.start(&Setup { calls: Calls::These(vec![number]), ..Setup::default() });
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        let lie = if call.number == number && call.program == 1 { lie(call) } else { None };
        lie.map_or(Verdict::Continue, Verdict::Return)
    });
    let log = running.log();
    assert!(log.contains("bug in repot"), "{log}");
    if end != End::Init("ready".into()) {
        return (end, log, false);
    }
    let rules = Rules { atime: Atime::Ignored, ..AFTER_BOOT };
    let lost = difference(&prepared.before, &snapshot(running.root()).expect("a snapshot"), rules);
    assert_eq!(lost, "", "{log}");
    assert_eq!(carried(&prepared.mounts), carried(&running.mounts()), "{log}");
    let moved = prepared.mounts["/"][0].what.device != running.mounts()["/"][0].what.device;
    (end, log, moved)
}

#[test]
fn a_panic_before_the_plan_executes_an_init_in_place() {
    // More bytes than requested: beyond the end of the buffer.
    let mut first = true;
    let (end, log, moved) =
        with_a_kernel_that_lies(Fs::Ramfs, libc::SYS_read, |_| std::mem::take(&mut first).then_some(5000));
    assert_eq!(end, End::Init("ready".into()), "{log}");
    assert!(!moved && !log.contains("move:"), "{log}");
}

#[test]
fn a_lost_worker_makes_the_move_roll_back() {
    for fs in Fs::ALL {
        // Only for symbolic links of the tree, not for those of procfs.
        let (end, log, moved) = with_a_kernel_that_lies(fs, libc::SYS_readlinkat, |call| {
            (call.text(1) == b"symlink").then_some(1 << 40)
        });
        assert_eq!(end, End::Init("ready".into()), "{log}");
        assert!(!moved && log.contains("bind: move failed"), "{log}");
    }
}

/// With however little memory: an init on a complete tree, or what `onerror=` says.
#[test]
fn memory_can_run_out_anywhere() {
    let (mut moved, mut undone, mut in_place) = (0, 0, 0);
    for fs in Fs::ALL {
        for threads in [1, 4] {
            for kib in (384..704).step_by(16).chain((704..2304).step_by(128)) {
                let prepared = prepared(fs, &format!("threads={threads}\n"));
                let calls = Calls::These(vec![]);
                let setup = Setup { memory: Some(kib << 10), calls, ..Setup::default() };
                let mut running = prepared.start(&setup);
                let end = running.wait_until(Duration::from_secs(10), None, &mut |_| Verdict::Continue);
                let (log, what) = (running.log(), format!("{fs:?}, {threads} threads, {kib} KiB"));
                // Too little for the C library before `main`, or for the kernel to start the program at all.
                if kib < 512 && matches!(end, End::Killed(9 | 11)) {
                    continue;
                }
                assert_eq!(end, End::Init("ready".into()), "{what}: {log}");
                let rules = Rules { atime: Atime::Ignored, ..AFTER_BOOT };
                let now = snapshot(running.root()).expect("a snapshot");
                assert_eq!(difference(&prepared.before, &now, rules), "", "{what}: {log}");
                moved += u32::from(log.contains("repot: move: "));
                undone += u32::from(log.contains("bind: move failed"));
                in_place += u32::from(log.contains("bug in repot"));
            }
        }
    }
    assert!(moved > 0 && undone > 0 && in_place > 0, "{moved} moved, {undone} undone, {in_place} in place");
}
