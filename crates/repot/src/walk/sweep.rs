//! Empties a directory that an entry beside a payload replaces.

use core::ffi::CStr;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, unlinkat};

use super::{Directory, Entered, Visitor, open, walk};
use crate::error::{Call, Fault};

/// Removes everything below `root`.
///
/// # Errors
/// The first entry that could not be removed. Others may remain too.
pub(crate) fn sweep(root: &OwnedFd) -> Result<(), Fault> {
    walk(&Sweep, open(root, c".")?, (), 1, &|| ())
}

struct Sweep;

impl Visitor for Sweep {
    type Dir = OwnedFd;
    type Meta = ();
    type Scratch = ();
    const REMOVES: bool = true;

    fn entry(&self, (): &mut (), dir: &OwnedFd, name: &CStr, _: FileType) -> Result<(), Fault> {
        unlinkat(dir, name, AtFlags::empty()).call("unlinkat")
    }

    fn enter(&self, dir: &OwnedFd, name: &CStr) -> Result<Entered<Self>, Fault> {
        dir.open(name).map(|dir| Some((dir, ())))
    }

    fn leave(
        &self,
        (): &mut (),
        parent: Option<(&OwnedFd, &CStr)>,
        _: &OwnedFd,
        (): &(),
        complete: bool,
    ) -> Result<(), Fault> {
        match parent {
            Some((dir, name)) if complete => unlinkat(dir, name, AtFlags::REMOVEDIR).call("unlinkat"),
            _ => Ok(()),
        }
    }
}
