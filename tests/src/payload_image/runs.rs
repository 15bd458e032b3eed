//! Runs of an image, intact or changed.
use std::fs;

use super::{Packed, RULES, arrived, carried, unpacked};
use crate::intercept::{Call, Calls, Verdict};
use crate::rehome::{AFTER_BOOT, Rehomed, run};
use crate::sandbox::{DEADLINE, End, Running, Setup};
use crate::stage::{Prepared, Stage};
use crate::trees::Fs;
use repot_snapshot::{Atime, Rules, difference, snapshot};

/// Makes a packed init move its root, which is not the initial one here.
pub const MOVE: &str = "mode=move";
/// Makes a run without any init end.
pub const QUICK_END: &str = "onerror=poweroff";

/// Runs an image on an `fs` and returns the result.
#[must_use]
pub fn boot(fs: Fs, packed: &Packed) -> Rehomed {
    run(unpacked(fs, &[], &[&packed.image], |_| ()), &Setup::default())
}

/// Unpacks an image as the kernel does, and then changes it, so that the image is wrong, not the kernel's
/// unpacking.
pub fn changed(packed: &Packed, change: impl Fn(&Stage) + Send + Sync) -> Prepared {
    unpacked(Fs::Tmpfs, &[], &[&packed.image], |stage| {
        // The end marker covers what the kernel unpacked.
        for mark in [".repot-begin", ".repot-end"] {
            fs::remove_file(stage.path(mark)).expect("removed");
        }
        change(stage);
    })
}

/// Runs a changed image to the end.
pub fn refused(packed: &Packed, change: impl Fn(&Stage) + Send + Sync) -> (Prepared, End, String) {
    let prepared = changed(packed, change);
    let mut running = prepared.start(&Setup::default());
    let end = running.wait();
    let log = running.log();
    (prepared, end, log)
}

/// Checks that the root is unchanged.
///
/// # Panics
/// If it is not.
pub fn assert_untouched(prepared: &Prepared) {
    let rules = Rules { atime: Atime::Ignored, gone: &[], ..AFTER_BOOT };
    let said = difference(&prepared.before, &snapshot(&prepared.view).expect("a snapshot"), rules);
    assert_eq!(said, "", "it was touched");
}

/// Checks that the running root is the whole tree.
///
/// # Panics
/// If it is not.
pub fn assert_whole(packed: &Packed, running: &Running) {
    let after = arrived(&snapshot(running.root()).expect("a snapshot"));
    assert_eq!(difference(&carried(&packed.before), &after, RULES), "", "{}", running.log());
}

/// Runs an image. `fails` decides which of the init's calls with these numbers fail.
pub fn with_faults(
    prepared: &Prepared,
    calls: &[i64],
    mut fails: impl FnMut(&Call) -> Option<rustix::io::Errno>,
) -> (End, Running) {
    let mut running = prepared.start(&Setup { calls: Calls::These(calls.to_vec()), ..Setup::default() });
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        let fault = if call.program == 1 && calls.contains(&call.number) { fails(call) } else { None };
        fault.map_or(Verdict::Continue, Verdict::Fail)
    });
    (end, running)
}
