//! Removes the mount points that had to stay in the old root until the mounts were moved.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};

use crate::error::{Call, Fault};
use crate::sys::Event;
use crate::walk::{Visitor, walk};

/// Empties a tree of which nothing but mount points, and the directories above them, is left.
///
/// # Errors
/// The first thing that could not be removed; the rest may be there too.
pub(crate) fn sweep(root: &OwnedFd) -> Result<(), Fault> {
    let root = openat(root, c".", DIRECTORY, Mode::empty()).call("openat")?;
    walk(&Sweep(Event::new()), root, (), 1, &|| ()).map_err(|broken| broken.fault)
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Sweep(Event);

impl Visitor for Sweep {
    type Dir = OwnedFd;
    type Meta = ();
    type Scratch = ();
    const REMOVES: bool = true;
    const DESCRIPTORS: usize = 1;

    fn bell(&self) -> &Event {
        &self.0
    }
    fn list(dir: &OwnedFd) -> BorrowedFd<'_> {
        dir.as_fd()
    }
    fn parent(&self, dir: &OwnedFd) -> Result<OwnedFd, Fault> {
        openat(dir, c"..", DIRECTORY, Mode::empty()).call("openat")
    }
    fn entry(&self, (): &mut (), dir: &OwnedFd, name: &CStr, _: FileType) -> Result<(), Fault> {
        unlinkat(dir, name, AtFlags::empty()).call("unlinkat")
    }
    fn enter(&self, dir: &OwnedFd, name: &CStr) -> Result<Option<(OwnedFd, ())>, Fault> {
        openat(dir, name, DIRECTORY, Mode::empty()).call("openat").map(|dir| Some((dir, ())))
    }
    fn leave(
        &self,
        (): &mut (),
        parent: Option<(&OwnedFd, &CStr)>,
        _: &OwnedFd,
        (): &(),
        whole: bool,
    ) -> Result<(), Fault> {
        match parent {
            Some((dir, name)) if whole => unlinkat(dir, name, AtFlags::REMOVEDIR).call("unlinkat"),
            _ => Ok(()),
        }
    }
}
