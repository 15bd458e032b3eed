//! Runs of an image, whole or changed.
use std::fs;

use super::{Packed, RULES, arrived, carried, unpacked};
use crate::intercept::{Call, Calls, Verdict};
use crate::rehome::{AFTER_BOOT, Rehomed, run};
use crate::sandbox::{DEADLINE, End, Running, Setup};
use crate::stage::{Prepared, Stage};
use crate::trees::Fs;
use repot_snapshot::{Atime, Rules, difference, snapshot};

/// What makes a packed init move its root, which is no initial one here.
pub const MOVE: &str = "mode=move";
/// What ends a run that no init comes out of.
pub const QUICK_END: &str = "onerror=poweroff";

/// Runs an image on an `fs` and gives what came of it.
#[must_use]
pub fn boot(fs: Fs, packed: &Packed) -> Rehomed {
    run(unpacked(fs, &[], &[&packed.image], |_| ()), &Setup::default())
}

/// An image as the kernel unpacks it, and then changed: what is wrong is the image, not the kernel's unpacking.
pub fn changed(packed: &Packed, change: impl Fn(&Stage) + Send + Sync) -> Prepared {
    unpacked(Fs::Tmpfs, &[], &[&packed.image], |stage| {
        // They are about what the kernel unpacked.
        for mark in [".repot-begin", ".repot-end"] {
            fs::remove_file(stage.path(mark)).expect("removed");
        }
        change(stage);
    })
}

/// Runs an image that is changed, to the end that it comes to.
pub fn refused(packed: &Packed, change: impl Fn(&Stage) + Send + Sync) -> (Prepared, End, String) {
    let prepared = changed(packed, change);
    let mut running = prepared.start(&Setup::default());
    let end = running.wait();
    let log = running.log();
    (prepared, end, log)
}

/// The root is as it was.
///
/// # Panics
/// When it is not.
pub fn assert_untouched(prepared: &Prepared) {
    let rules = Rules { atime: Atime::Ignored, ..AFTER_BOOT };
    let said = difference(&prepared.before, &snapshot(&prepared.view).expect("a snapshot"), rules);
    assert_eq!(said, "", "it was touched");
}

/// The root that runs now is the whole tree.
///
/// # Panics
/// When it is not.
pub fn assert_whole(packed: &Packed, running: &Running) {
    let after = arrived(&snapshot(running.root()).expect("a snapshot"));
    assert_eq!(difference(&carried(&packed.before), &after, RULES), "", "{}", running.log());
}

/// Runs an image where `fails` decides which of the init's calls with these numbers fail.
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
