//! Goes through a tree and removes what may go: the mount points that stayed in the old root until the mounts
//! had moved, or a directory that an entry of the old root replaces. Starts no thread.

use core::ffi::CStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, unlinkat};
use rustix::io::Errno;

use super::{Directory, Entered, Visitor, has_vanished, open, walk};
use crate::error::{Call, Fault};
use crate::metadata::{At, Meta};

/// Decides about an entry of a directory, with its inode number.
pub(crate) type MayGo<'a> = dyn Fn(&OwnedFd, &CStr, u64) -> bool + Sync + 'a;

/// Removes everything below `root` that `may_go` accepts. Everything else stays, with the directories above
/// it.
///
/// # Errors
/// The first entry that could not be removed. Others may remain too.
pub(crate) fn sweep(root: &OwnedFd, may_go: &MayGo<'_>) -> Result<(), Fault> {
    walk(&Sweep { may_go, removes: true }, open(root, c".")?, 0, 0, &|| ())
}

/// Shows `look` everything below `root`, and removes nothing.
///
/// # Errors
/// The first directory that could not be read.
pub(crate) fn visit(root: &OwnedFd, look: &(dyn Fn(&OwnedFd, &CStr, u64) + Sync)) -> Result<(), Fault> {
    let may_go = &|dir: &OwnedFd, name: &CStr, inode| {
        look(dir, name, inode);
        false
    };
    walk(&Sweep { may_go, removes: false }, open(root, c".")?, 0, 0, &|| ())
}

struct Sweep<'a> {
    may_go: &'a MayGo<'a>,
    removes: bool,
}

impl Visitor for Sweep<'_> {
    type Dir = OwnedFd;
    /// The inode number.
    type Meta = u64;
    type Scratch = ();

    fn removes(&self) -> bool {
        self.removes
    }

    fn entry(&self, (): &mut (), dir: &OwnedFd, name: &CStr, _: FileType) -> Result<(), Fault> {
        let meta = match Meta::read(At::Named(dir.as_fd(), name)) {
            Err(fault) if has_vanished(fault.errno) => return Ok(()),
            read => read?,
        };
        if (self.may_go)(dir, name, meta.inode) {
            unlinkat(dir, name, AtFlags::empty()).call("unlinkat")?;
        }
        Ok(())
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
        match parent {
            Some((dir, name)) if complete && (self.may_go)(dir, name, *inode) => {
                match unlinkat(dir, name, AtFlags::REMOVEDIR) {
                    // It holds something that stays.
                    Err(Errno::NOTEMPTY) => Ok(()),
                    removed => removed.call("unlinkat"),
                }
            }
            _ => Ok(()),
        }
    }
}
