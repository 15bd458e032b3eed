//! Goes through a tree and removes everything, or only looks. Starts no thread.

use core::ffi::CStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};

use super::{Directory, Entered, Visitor, has_vanished, open, walk};
use crate::error::{Call, Fault};
use crate::metadata::{At, Meta};
use crate::mover::{Holes, data_ranges, zero};

/// Removes everything below `root`; with `wipe`, overwrites the contents of files first.
///
/// # Errors
/// The first entry that could not be removed. Others may remain too.
pub(crate) fn sweep(root: &OwnedFd, wipe: Option<Holes>) -> Result<(), Fault> {
    walk(&Sweep(Task::Remove(wipe)), open(root, c".")?, 0, 0, &|| ())
}

/// Shows `look` everything below `root`, with its inode number.
///
/// # Errors
/// The first directory that could not be read.
pub(crate) fn visit(root: &OwnedFd, look: &Look<'_>) -> Result<(), Fault> {
    walk(&Sweep(Task::Look(look)), open(root, c".")?, 0, 0, &|| ())
}

/// Looks at an entry of a directory.
pub(crate) type Look<'a> = dyn Fn(&OwnedFd, &CStr, u64) + Sync + 'a;

struct Sweep<'a>(Task<'a>);

enum Task<'a> {
    Remove(Option<Holes>),
    Look(&'a Look<'a>),
}

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

impl Visitor for Sweep<'_> {
    type Dir = OwnedFd;
    /// The inode number.
    type Meta = u64;
    type Scratch = ();

    fn removes(&self) -> bool {
        !matches!(self.0, Task::Look(_))
    }

    fn entry(&self, (): &mut (), dir: &OwnedFd, name: &CStr, _: FileType) -> Result<(), Fault> {
        match self.0 {
            Task::Remove(wipe) => remove(dir, name, wipe),
            Task::Look(look) => match Meta::read(At::Named(dir.as_fd(), name)) {
                Err(fault) if has_vanished(fault.errno) => Ok(()),
                meta => meta.map(|meta| look(dir, name, meta.inode)),
            },
        }
    }

    fn enter(&self, dir: &OwnedFd, name: &CStr) -> Result<Entered<Self>, Fault> {
        let dir = match dir.open(name) {
            Err(fault) if has_vanished(fault.errno) => return Ok(None),
            opened => opened?,
        };
        let inode = Meta::read(At::Open(dir.as_fd()))?.inode;
        Ok(Some((dir, inode)))
    }

    fn leave(
        &self,
        (): &mut (),
        parent: Option<(&OwnedFd, &CStr)>,
        _: &OwnedFd,
        inode: &u64,
        complete: bool,
    ) -> Result<(), Fault> {
        let Some((dir, name)) = parent.filter(|_| complete) else { return Ok(()) };
        match self.0 {
            Task::Remove(_) => unlinkat(dir, name, AtFlags::REMOVEDIR).call("unlinkat"),
            Task::Look(look) => {
                look(dir, name, *inode);
                Ok(())
            }
        }
    }
}
