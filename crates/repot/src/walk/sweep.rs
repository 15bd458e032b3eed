//! Empties a directory that an entry beside a payload replaces.

use core::ffi::CStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};

use super::{Directory, Entered, Visitor, open, walk};
use crate::error::{Call, Fault};
use crate::metadata::{At, Meta};
use crate::mover::data::{Holes, data_ranges, zero};

/// Removes everything below `root`; with `wipe`, overwrites the contents of files first.
///
/// # Errors
/// The first entry that could not be removed. Others may remain too.
pub(crate) fn sweep(root: &OwnedFd, wipe: Option<Holes>) -> Result<(), Fault> {
    walk(&Sweep(wipe), open(root, c".")?, (), 1, &|| ())
}

struct Sweep(Option<Holes>);

/// Removes an entry that is not a directory; with `wipe`, overwrites what it frees first.
pub(crate) fn remove(dir: &OwnedFd, name: &CStr, wipe: Option<Holes>) -> Result<(), Fault> {
    if let Some(holes) = wipe {
        let meta = Meta::read(At::Named(dir.as_fd(), name))?;
        if meta.kind == FileType::RegularFile && meta.links == 1 && meta.allocated > 0 {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(dir, name, flags, Mode::empty()).call("openat")?;
            data_ranges(holes, file.as_fd(), 0..meta.size, |range| zero(file.as_fd(), range))?;
        }
    }
    unlinkat(dir, name, AtFlags::empty()).call("unlinkat")
}

impl Visitor for Sweep {
    type Dir = OwnedFd;
    type Meta = ();
    type Scratch = ();
    const REMOVES: bool = true;

    fn entry(&self, (): &mut (), dir: &OwnedFd, name: &CStr, _: FileType) -> Result<(), Fault> {
        remove(dir, name, self.0)
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
