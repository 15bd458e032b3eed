//! Rolls a failed move back.
//!
//! Whatever the failed move has freed is complete in the new tree. So a rollback is the same move with the
//! roots exchanged, in merge mode. Only hard links need more: names still in the old tree may belong to
//! inodes whose contents are gone. These names are collected first, and the names that return are linked to
//! them.
//!
//! It starts no thread, because there may be no memory for one.

use alloc::collections::BTreeMap;
use core::ffi::CStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, IFlags, linkat};
use rustix::io::Errno;

use super::data::{Buffer, Holes};
use super::entries::{DirMeta, Mover, Onto, disable_inheritance};
use super::file::{Settings, merge_contents};
use super::folios::Folios;
use super::links::{Links, NewInode};
use super::ranges::LargeFiles;
use crate::error::{Call, Fault};
use crate::metadata::{At, Attributes, Meta};
use crate::newroot::NewRoot;
use crate::progress::Progress;
use crate::walk::{Directory, Entered, Pair, Visitor, open, walk};

/// The state that a rollback needs.
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
        let returning = Links::new(old.as_fd(), new.as_fd())?;
        let moved_inodes: BTreeMap<u64, NewInode> = links.pairs().into_iter().collect();
        if !moved_inodes.is_empty() {
            let finder = RemainingNames { moved_inodes: &moved_inodes, returning: &returning };
            walk(&finder, open(old, c".")?, (), 0, &|| ())?;
            for (old_inode, new_inode) in &moved_inodes {
                restore(*attributes, links, &returning, *old_inode, *new_inode)?;
            }
        }
        links.clear()?;
        let settings = Settings {
            attributes: *attributes,
            holes: Holes::Seek,
            program: None,
            wipe: false,
            folios: &Folios::unchanged(),
            large_files: &LargeFiles::new(1),
            progress: &Progress::default(),
        };
        let mover = Mover { settings, links: &returning, onto: Onto::Undo };
        disable_inheritance(old.as_fd())?;
        let root = DirMeta { meta: *root, flags: *flags, merged: false };
        walk(&mover, Pair::reopen(new, old)?, root, 0, &|| ())
    }
}

/// Restores the contents of `old_inode` from `new_inode`, which it has become, if the old one still has a
/// name.
fn restore(
    attributes: Attributes,
    links: &Links,
    returning: &Links,
    old_inode: u64,
    new_inode: NewInode,
) -> Result<(), Fault> {
    let (moved, key) = links.staging();
    let (found, _) = returning.staging();
    let (from, to) = (key(old_inode), key(new_inode.inode));
    if Meta::read(At::Named(found, &to)).is_err_and(|fault| fault.errno == Errno::NOENT) {
        return Ok(());
    }
    let meta = Meta::read(At::Named(moved, &from))?;
    if meta.kind == FileType::RegularFile {
        let buffer = &mut Buffer::default();
        merge_contents(attributes, Holes::Seek, buffer, (moved, &from), (found, &to), &meta)?;
    }
    returning.moved(new_inode.inode, NewInode { inode: old_inode, flags: new_inode.flags });
    links.forget(old_inode)
}

/// Collects names in the old tree whose inodes have moved: links each as the number of its new inode.
#[derive(Debug)]
struct RemainingNames<'a> {
    moved_inodes: &'a BTreeMap<u64, NewInode>,
    returning: &'a Links,
}

impl Visitor for RemainingNames<'_> {
    type Dir = OwnedFd;
    type Meta = ();
    type Scratch = ();
    const REMOVES: bool = false;

    fn entry(&self, (): &mut (), dir: &OwnedFd, name: &CStr, _: FileType) -> Result<(), Fault> {
        let inode = Meta::read(At::Named(dir.as_fd(), name))?.inode;
        let Some(new) = self.moved_inodes.get(&inode) else { return Ok(()) };
        let (staging, key) = self.returning.staging();
        match linkat(dir, name, staging, key(new.inode), AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            failed => failed.call("linkat"),
        }
    }

    fn enter(&self, dir: &OwnedFd, name: &CStr) -> Result<Entered<Self>, Fault> {
        dir.open(name).map(|dir| Some((dir, ())))
    }
}
