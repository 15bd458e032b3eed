//! Makes the new root the root of this process.
//!
//! From 7.0 on the initial root can be left by `pivot_root`, and goes away with all that is in it. Before, it
//! has no parent, and the kernel says EINVAL; then it stays below, empty, and `chroot` does the rest.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use crate::carry::Carried;
use crate::error::{Call, Error, Step};
use crate::plan::Method;
use crate::progress::Progress;
use crate::walk::sweep::sweep;

/// The new root is `/`; all that is left is to execute the init.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ready {
    /// What was moved.
    pub progress: Progress,
    /// How many mounts were moved.
    pub mounts: usize,
    /// Whether the old root was seen to be empty; never after a bind, which leaves it as it is.
    pub empty: bool,
    /// Whether `pivot_root` did it, so that the old root is gone.
    pub pivoted: bool,
    /// What this process itself has in memory, in bytes.
    pub resident: u64,
    /// The executable inits, best first.
    pub inits: Vec<Vec<u8>>,
    /// What did not go as it should, without harm to what comes next.
    pub warnings: Vec<String>,
}

/// Switches.
///
/// # Errors
/// The call that failed; everything is then back where it was.
pub(crate) fn switch(carried: Carried<'_>) -> Result<Ready, Error> {
    let mut warnings = carried.relocated.arrived.warnings.clone();
    let new = &carried.relocated.new;
    let entered = fchdir(&new.dir).call("fchdir").and_then(|()| match pivot_root(".", ".") {
        Ok(()) => Ok(true),
        // Whatever the reason, the older way remains.
        Err(_) => chroot(".").on("chroot", b".").map(|()| false),
    });
    let pivoted = match entered {
        Ok(pivoted) => pivoted,
        Err(fault) => {
            let _ = chdir("/");
            return Err(carried.back(fault.at(Step::Switch)));
        }
    };
    if pivoted && let Err(fault) = unmount(".", UnmountFlags::DETACH).on("umount2", b".") {
        warnings.push(format!("{}; the old root stays mounted", fault.at(Step::Switch)));
    }
    if let Err(fault) = chdir("/").on("chdir", b"/") {
        warnings.push(format!("{}", fault.at(Step::Switch)));
    }
    if carried.shared
        && let Err(fault) = mount_change("/", MountPropagationFlags::SHARED).on("mount", b"/")
    {
        warnings.push(format!("{}; / is private now", fault.at(Step::Switch)));
    }
    // Not before: to undo it all, the mounts need their places in the old root.
    let swept = if carried.relocated.kept() { sweep(&new.site.old) } else { Ok(()) };
    for fault in carried.left.into_iter().chain(swept.err()) {
        warnings.push(format!("{}; left in place", fault.at(Step::Carry)));
    }
    let empty = matches!(new.method, Method::Move | Method::Payload) && empty(&new.site.old);
    let resident = new.site.resident();
    Ok(Ready {
        mounts: carried.mounts,
        progress: carried.relocated.progress,
        empty,
        inits: carried.relocated.arrived.inits,
        pivoted,
        resident,
        warnings,
    })
}

fn empty(old: &OwnedFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
    let Ok(list) = openat(old, c".", flags, Mode::empty()).and_then(Dir::new) else { return false };
    list.into_iter()
        .all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
}
