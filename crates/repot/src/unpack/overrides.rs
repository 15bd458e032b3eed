//! Removes entries of the payload that entries of the initramfs override.
//!
//! A directory in both trees stays, and the mover merges it. Any other entry of the payload that has the name
//! of an entry of the old root is removed, with everything below it.

use core::ffi::CStr;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, openat, unlinkat};
use rustix::io::Errno;

use crate::error::{Call, Fault};
use crate::walk::sweep::sweep;
use crate::walk::{DIRECTORY, Entered, Pair, Visitor, open, walk};

/// Removes the entries of `new` that entries of `old` override.
pub(super) fn remove_overridden(old: &OwnedFd, new: &OwnedFd) -> Result<(), Fault> {
    walk(&Overrides, Pair::reopen(old, new)?, (), 1, &|| ())
}

struct Overrides;

impl Visitor for Overrides {
    type Dir = Pair;
    type Meta = ();
    type Scratch = ();

    fn entry(&self, (): &mut (), dir: &Pair, name: &CStr, _: FileType) -> Result<(), Fault> {
        match unlinkat(&dir.new, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // unlink(2) returns EISDIR for a directory.
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(errno).call("unlinkat"),
        }
        sweep(&open(&dir.new, name)?, &|_, _, _| true)?;
        unlinkat(&dir.new, name, AtFlags::REMOVEDIR).call("unlinkat")
    }

    fn enter(&self, dir: &Pair, name: &CStr) -> Result<Entered<Self>, Fault> {
        match openat(&dir.new, name, DIRECTORY, Mode::empty()) {
            Ok(new) => Ok(Some((Pair { old: open(&dir.old, name)?, new }, ()))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                unlinkat(&dir.new, name, AtFlags::empty()).call("unlinkat").map(|()| None)
            }
            Err(errno) => Err(errno).call("openat"),
        }
    }
}
