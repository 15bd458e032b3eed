//! Makes the new root the root of this process.
//!
//! From 7.0 on, `pivot_root` can leave the initial root, which is then freed with everything in it. Before
//! 7.0 the initial root mount has no parent, and the kernel returns EINVAL. Then the old root stays below,
//! empty, and `chroot` does the rest.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use crate::carry::Carried;
use crate::error::{Call, Error, Fault, Step};
use crate::plan::Method;
use crate::progress::Progress;
use crate::relocate::Relocated;

/// The new root is `/`. Only the real init remains to be executed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ready {
    /// The counters of the move.
    pub progress: Progress,
    /// The number of moved mounts.
    pub mounts: usize,
    /// Whether the old root is known to be empty; never after a bind mount, which leaves it as it is.
    pub empty: bool,
    /// Whether `pivot_root` succeeded, so that the old root is unmounted.
    pub pivoted: bool,
    /// The resident memory of this process, in bytes.
    pub resident: u64,
    /// The executable inits, best first.
    pub inits: Vec<Vec<u8>>,
    /// Problems that do not affect the next steps.
    pub warnings: Vec<String>,
}

/// Makes the new root `/`.
///
/// # Errors
/// The call that failed. Everything is rolled back then.
pub(crate) fn switch(mut carried: Carried<'_>) -> Result<Ready, Error> {
    let Relocated { new, mounts, arrived, .. } = &mut carried.relocated;
    let mut warnings = arrived.warnings.clone();
    let entered = fchdir(&new.mount).call("fchdir").and_then(|()| match pivot_root(".", ".") {
        Ok(()) => Ok(true),
        // chroot(2) works in every case.
        Err(_) => chroot(".").on("chroot", b".").map(|()| false),
    });
    let pivoted = match entered {
        Ok(pivoted) => pivoted,
        Err(fault) => {
            let _ = chdir("/");
            return Err(carried.roll_back(fault.at(Step::Switch)));
        }
    };
    if pivoted && let Err(fault) = unmount(".", UnmountFlags::DETACH).on("umount2", b".") {
        warnings.push(format!("{}; the old root stays mounted", fault.at(Step::Switch)));
    }
    let left = carried.left.iter().cloned();
    warnings.extend(left.map(|fault| format!("{}; left in place", fault.at(Step::Carry))));
    let private = mounts.share_on(new);
    let warning = |fault: Fault| format!("{}; it does not share mounts any more", fault.at(Step::Switch));
    warnings.extend(private.into_iter().map(warning));
    if let Err(fault) = chdir("/").on("chdir", b"/") {
        warnings.push(format!("{}", fault.at(Step::Switch)));
    }
    let empty = matches!(new.method, Method::Move | Method::Payload) && is_empty(&new.site.old);
    let resident = new.site.resident();
    Ok(Ready {
        mounts: mounts.number(),
        progress: carried.relocated.progress,
        empty,
        inits: carried.relocated.arrived.inits,
        pivoted,
        resident,
        warnings,
    })
}

/// Whether a directory has no entries.
fn is_empty(old: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
    let Ok(list) = openat(old, c".", flags, Mode::empty()).and_then(Dir::new) else { return false };
    list.into_iter()
        .all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
}
