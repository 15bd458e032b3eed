//! Removes entries of the payload that entries of the initramfs override.
//!
//! A directory in both trees stays, and the mover merges it. Any other entry of the payload that has the name
//! of an entry of the old root is removed, with everything below it.

use core::ffi::CStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, openat, unlinkat};
use rustix::io::Errno;

use crate::error::{Call, Fault};
use crate::metadata::{At, Meta};
use crate::mover::Holes;
use crate::walk::sweep::{remove, sweep};
use crate::walk::{DIRECTORY, Entered, Pair, Visitor, open, walk};

/// Removes the entries of `new` that entries of `old` override; with `wipe`, overwrites their contents first.
pub(super) fn remove_overridden(old: &OwnedFd, new: &OwnedFd, wipe: Option<Holes>) -> Result<(), Fault> {
    walk(&Overrides(wipe), Pair::reopen(old, new)?, (), 1, &|| ())
}

struct Overrides(Option<Holes>);

impl Visitor for Overrides {
    type Dir = Pair;
    type Meta = ();
    type Scratch = ();

    fn entry(&self, (): &mut (), dir: &Pair, name: &CStr, _: FileType) -> Result<(), Fault> {
        match Meta::read(At::Named(dir.new.as_fd(), name)) {
            Err(fault) if fault.errno == Errno::NOENT => return Ok(()),
            Ok(meta) if meta.kind != FileType::Directory => return remove(&dir.new, name, self.0),
            found => found.map(drop)?,
        }
        sweep(&open(&dir.new, name)?, self.0)?;
        unlinkat(&dir.new, name, AtFlags::REMOVEDIR).call("unlinkat")
    }

    fn enter(&self, dir: &Pair, name: &CStr) -> Result<Entered<Self>, Fault> {
        match openat(&dir.new, name, DIRECTORY, Mode::empty()) {
            Ok(new) => Ok(Some((Pair { old: open(&dir.old, name)?, new }, ()))),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => remove(&dir.new, name, self.0).map(|()| None),
            Err(errno) => Err(errno).call("openat"),
        }
    }
}
