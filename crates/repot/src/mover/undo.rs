//! Rolls a failed move back.
//!
//! Whatever the failed move has freed is whole in the new tree. So this is the same move with the roots
//! exchanged, told to merge. Only hard links need more: names still in the old tree may belong to inodes
//! whose contents are gone. They are collected first, and the names that come back are linked to them.
//!
//! It starts no thread, since there may be no memory for one.

use alloc::collections::BTreeMap;
use core::ffi::CStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, IFlags, linkat};
use rustix::io::Errno;

use super::data::{Buffer, Holes};
use super::entries::{DirMeta, Mover, Onto, plain};
use super::file::{Means, merge_contents};
use super::folios::Folios;
use super::links::{Links, NewInode};
use super::ranges::Board;
use crate::error::{Call, Fault};
use crate::metadata::{At, Attributes, Meta};
use crate::newroot::NewRoot;
use crate::progress::Progress;
use crate::walk::{Directory, Entered, Pair, Visitor, open, walk};

/// What is needed to roll a move back.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) links: Links,
    pub(super) attributes: Attributes,
    /// The inode flags of the root directory.
    pub(super) flags: IFlags,
    /// The attributes of the root directory before the move.
    pub(super) root: Meta,
}

impl Moved {
    /// Moves everything from the new root back to the old one.
    pub(super) fn roll_back(&self, new: &NewRoot<'_>) -> Result<(), Fault> {
        let (old, new) = (&new.site.old, &new.dir);
        let Moved { links, attributes, flags, root } = self;
        let back = Links::new(old.as_fd(), new.as_fd())?;
        let survivors: BTreeMap<u64, NewInode> = links.pairs().into_iter().collect();
        if !survivors.is_empty() {
            let finder = Survivors { known: &survivors, back: &back };
            walk(&finder, open(old, c".")?, (), 0, &|| ())?;
            for (was, is) in &survivors {
                restore(*attributes, links, &back, *was, *is)?;
            }
        }
        links.clear()?;
        let means = Means {
            attributes: *attributes,
            holes: Holes::Seek,
            program: None,
            wipe: false,
            folios: &Folios::as_they_come(),
            board: &Board::new(1),
            progress: &Progress::default(),
        };
        let mover = Mover { means, links: &back, onto: Onto::Undo };
        plain(old.as_fd())?;
        let root = DirMeta { meta: *root, flags: *flags, merged: false };
        walk(&mover, Pair::reopen(new, old)?, root, 0, &|| ())
    }
}

/// Restores the contents of the old inode `was` from the new inode `is`, if the old one still has a name.
fn restore(attributes: Attributes, links: &Links, back: &Links, was: u64, is: NewInode) -> Result<(), Fault> {
    let (moved, key) = links.staging();
    let (found, _) = back.staging();
    let (from, to) = (key(was), key(is.inode));
    if Meta::read(At::Named(found, &to)).is_err_and(|fault| fault.errno == Errno::NOENT) {
        return Ok(());
    }
    let meta = Meta::read(At::Named(moved, &from))?;
    if meta.kind == FileType::RegularFile {
        let buffer = &mut Buffer::default();
        merge_contents(attributes, Holes::Seek, buffer, (moved, &from), (found, &to), &meta)?;
    }
    back.moved(is.inode, NewInode { inode: was, flags: is.flags });
    links.forget(was)
}

/// Collects the names in the old tree whose inodes have moved: each is linked under the number of its new
/// inode.
#[derive(Debug)]
struct Survivors<'a> {
    known: &'a BTreeMap<u64, NewInode>,
    back: &'a Links,
}

impl Visitor for Survivors<'_> {
    type Dir = OwnedFd;
    type Meta = ();
    type Scratch = ();
    const REMOVES: bool = false;

    fn entry(&self, (): &mut (), dir: &OwnedFd, name: &CStr, _: FileType) -> Result<(), Fault> {
        let inode = Meta::read(At::Named(dir.as_fd(), name))?.inode;
        let Some(new) = self.known.get(&inode) else { return Ok(()) };
        let (staging, key) = self.back.staging();
        match linkat(dir, name, staging, key(new.inode), AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            failed => failed.call("linkat"),
        }
    }

    fn enter(&self, dir: &OwnedFd, name: &CStr) -> Result<Entered<Self>, Fault> {
        dir.open(name).map(|dir| Some((dir, ())))
    }
}
