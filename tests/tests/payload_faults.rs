//! Payloads while calls fail or memory ends: an init on a whole tree, or no init and the cause.
use std::time::Duration;

use repot_tests::faults::{Outcome, error_name};
use repot_tests::intercept::{Calls, Verdict};
use repot_tests::payload_image::faults::{Sweep, is_bad};
use repot_tests::payload_image::runs::{
    MOVE, QUICK_END, assert_untouched, assert_whole, changed, with_faults,
};
use repot_tests::payload_image::{noise, of_several_chunks, pack};
use repot_tests::sandbox::{End, Setup};
use rustix::io::Errno;

const NO_WAY_BACK: &str = "chunks of the payload are already freed";

/// A sample of the sweep (`cargo xtask faults --payload` runs all of it). The sweep decides which results are
/// allowed.
#[test]
fn a_failed_call_leaves_a_whole_system_or_none() {
    let sweep = Sweep::new();
    let points = sweep.points();
    assert!(points.len() > 1000, "{} points", points.len());
    let (mut moved, mut gave_up) = (0, 0);
    for point in points.iter().step_by(71) {
        let outcome = sweep.run(point);
        assert!(!is_bad(&outcome), "{point}: {outcome:?}");
        moved += u32::from(outcome == Outcome::Moved);
        gave_up += u32::from(matches!(outcome, Outcome::GaveUp(_)));
    }
    assert!(moved > 20 && gave_up > 0, "{moved} {gave_up}");
}

/// Each thread allocates what it needs before anything is freed. Threads without memory are skipped. If not
/// even one has memory, nothing changes.
#[test]
fn threads_without_memory_for_a_window_are_skipped() {
    const WINDOW: u64 = 1 << 20;
    let packed = pack(&[MOVE, QUICK_END, "threads=3"], of_several_chunks);
    for there_is_memory_for in [3, 2, 1, 0] {
        let prepared = changed(&packed, |_| ());
        let mut windows = 0;
        let (end, running) = with_faults(&prepared, &[libc::SYS_mmap], |call| {
            let window = call.args[1] > WINDOW;
            windows += u32::from(window);
            (window && windows > there_is_memory_for).then_some(Errno::NOMEM)
        });
        let log = running.log();
        if there_is_memory_for == 0 {
            assert_eq!(end, End::Killed(2), "{log}");
            // Once with three threads, once with one.
            assert_eq!((windows, log.matches("malloc \"decoder\": ENOMEM").count()), (2, 2), "{log}");
            assert!(!log.contains(NO_WAY_BACK), "{log}");
            assert_untouched(&prepared);
        } else {
            assert_eq!(end, End::Init("ready".into()), "{log}");
            // Three allocations, or those up to the first that fails, and none later.
            assert_eq!(windows, 3.min(there_is_memory_for + 1), "{log}");
            assert_whole(&packed, &running);
        }
    }
}

/// From some piece of some file on, nothing can be written.
#[test]
fn lack_of_memory_in_a_file_is_logged_by_entry_frame_and_chunk() {
    // The size of the library's writes. Lines of the log are shorter.
    const PIECE: u64 = 64 << 10;
    let packed = pack(&[MOVE, QUICK_END, "threads=1"], of_several_chunks);
    for error in [Errno::NOMEM, Errno::NOSPC] {
        for (after, file) in [(0, "data/large"), (20, "data/large"), (60, "data/0")] {
            let prepared = changed(&packed, |_| ());
            let mut pieces = 0;
            let (end, running) = with_faults(&prepared, &[libc::SYS_pwrite64], |call| {
                pieces += u32::from(call.args[2] >= PIECE);
                (call.args[2] >= PIECE && pieces > after).then_some(error)
            });
            let (log, what) = (running.log(), format!("{} after {after} pieces", error_name(error)));
            assert_eq!(end, End::Killed(2), "{what}: {log}");
            let told = format!("payload: pwrite64 \"{file}");
            assert!(log.contains(&told) && log.contains(error_name(error)), "{what}: {log}");
            assert!(log.contains(" of frame ") && log.contains(" in chunk 0000"), "{what}: {log}");
            assert_eq!(log.contains(NO_WAY_BACK), after > 0, "{what}: {log}");
            if after == 0 {
                assert_untouched(&prepared);
            }
        }
    }
}

/// One thread fails while others write pieces of the same file.
#[test]
fn a_failed_piece_stops_the_other_threads() {
    let packed = pack(&[MOVE, QUICK_END, "threads=3"], |stage| {
        stage.file("large", &noise(1, 15 << 20));
        stage.file("other", &noise(2, 15 << 20));
    });
    for after in [0, 7, 40, 130] {
        let prepared = changed(&packed, |_| ());
        let mut pieces = 0;
        let (end, running) = with_faults(&prepared, &[libc::SYS_pwrite64], |_| {
            pieces += 1;
            (pieces > after).then_some(Errno::NOSPC)
        });
        let log = running.log();
        assert_eq!(end, End::Killed(2), "{after}: {log}");
        assert!(log.contains("payload: pwrite64 \"") && log.contains("ENOSPC"), "{after}: {log}");
        if after == 0 {
            assert!(!log.contains(NO_WAY_BACK), "{log}");
            assert_untouched(&prepared);
        }
    }
}

/// With however little memory: an init on a whole tree, or no init and the cause.
#[test]
fn memory_can_run_out_anywhere() {
    let (mut whole, mut refused) = (0, 0);
    for threads in ["threads=1", "threads=4"] {
        let packed = pack(&[MOVE, QUICK_END, threads], of_several_chunks);
        for kib in (768..4096).step_by(256).chain((4096..16384).step_by(2048)) {
            let prepared = changed(&packed, |_| ());
            let calls = Calls::These(vec![]);
            let mut running = prepared.start(&Setup { memory: Some(kib << 10), calls, ..Setup::default() });
            let end = running.wait_until(Duration::from_secs(20), None, &mut |_| Verdict::Continue);
            let (log, what) = (running.log(), format!("{threads}, {kib} KiB"));
            if end == End::Init("ready".into()) {
                assert_whole(&packed, &running);
                whole += 1;
            } else {
                assert_eq!(end, End::Killed(2), "{what}: {log}");
                let told = ["ENOMEM", "out of memory"].iter().any(|cause| log.contains(cause));
                assert!(told, "{what}: {log}");
                refused += 1;
            }
        }
    }
    assert!(whole > 5 && refused > 5, "{whole} whole, {refused} refused");
}
