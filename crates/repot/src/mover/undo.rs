//! Rolls a failed move back.
//!
//! Whatever the failed move has freed is complete in the new tree. So a rollback is the same move with the
//! roots exchanged, in merge mode. Only hard links need more: names still in the old tree may belong to
//! inodes whose contents are gone. These names are collected first, and the names that return are linked to
//! them.
//!
//! It starts no thread, because there may be no memory for one.

use alloc::vec::Vec;
use core::ffi::CStr;
use core::sync::atomic::AtomicU64;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, IFlags, linkat};
use rustix::io::Errno;

use super::both::Both;
use super::data::Buffer;
use super::entries::{DirMeta, Mover, Onto, disable_inheritance};
use super::file::{Settings, merge_contents};
use super::folios::Folios;
use super::holes::Holes;
use super::links::{Links, NewInode};
use super::ranges::LargeFiles;
use crate::error::{Call, Fault};
use crate::metadata::{At, Attributes, Meta};
use crate::newroot::NewRoot;
use crate::progress::Progress;
use crate::skipped::Skipped;
use crate::sys::Mutex;
use crate::walk::sweep::visit;
use crate::walk::{Pair, walk};

/// The state that a rollback needs.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) links: Links,
    pub(super) attributes: Attributes,
    /// The inode flags of the root directory.
    pub(super) flags: IFlags,
    /// The attributes of the root directory before the move.
    pub(super) root: Meta,
    /// The entries that are in both trees.
    pub(super) both: Both,
}

impl Moved {
    /// Moves everything from the new root back to the old one.
    pub(super) fn roll_back(&self, new: &NewRoot<'_>) -> Result<(), Fault> {
        let (old, new) = (&new.site.old, &new.dir);
        let Moved { links, attributes, flags, root, both } = self;
        let skipped = Skipped::default();
        let returning = Links::new(old.as_fd(), new.as_fd())?;
        // Sorted. A map made of them would bring a whole sort into the init.
        let moved_inodes: Vec<(u64, NewInode)> = links.pairs();
        if !moved_inodes.is_empty() {
            collect_remaining_names(old, &moved_inodes, &returning)?;
            for (old_inode, new_inode) in &moved_inodes {
                restore((*attributes, &skipped), links, &returning, *old_inode, *new_inode)?;
            }
        }
        links.clear()?;
        let own = Both::default();
        let settings = Settings {
            attributes: *attributes,
            holes: Holes::Seek,
            program: None,
            wipe: false,
            folios: &Folios::unchanged(),
            large_files: &LargeFiles::new(1),
            progress: &Progress::default(),
            both: &own,
            skipped: &skipped,
            beside: false,
        };
        let mover = Mover {
            settings,
            links: &returning,
            onto: Onto::Undo,
            before: Some(both),
            later: &[],
            moved: AtomicU64::new(0),
        };
        let root = DirMeta { meta: *root, flags: *flags, merged: false, existed: true };
        let mut tries = 0;
        let moved = loop {
            disable_inheritance(old.as_fd())?;
            match walk(&mover, Pair::reopen(new, old)?, root, 0, &|| ()) {
                // Another process has removed a directory of the old tree that was being filled. A new one is
                // made.
                Err(fault) if fault.errno == Errno::NOENT && tries < TRIES => tries += 1,
                moved => break moved,
            }
        };
        let cleared = moved.and_then(|()| returning.clear());
        let pair = Pair::reopen(new, old)?;
        cleared.and(mover.finish(&pair, &root).or_else(|_| mover.finish(&pair, &root)))
    }
}

/// How often another process may disturb a rollback.
const TRIES: u32 = 16;

/// Restores the contents of `old_inode` from `new_inode`, which it has become, if the old one still has a
/// name.
fn restore(
    (attributes, skipped): (Attributes, &Skipped),
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
        merge_contents(attributes, skipped, buffer, (moved, &from), (found, &to), &meta)?;
    }
    returning.moved(new_inode.inode, NewInode { inode: old_inode, flags: new_inode.flags });
    links.forget(old_inode)
}

/// Collects names in the old tree whose inodes have moved: links each as the number of its new inode.
fn collect_remaining_names(
    old: &OwnedFd,
    moved_inodes: &[(u64, NewInode)],
    returning: &Links,
) -> Result<(), Fault> {
    let failed = Mutex::new(None);
    let (staging, key) = returning.staging();
    let collect = |dir: &OwnedFd, name: &CStr, inode: u64| {
        if let Ok(place) = moved_inodes.binary_search_by_key(&inode, |(old, _)| *old) {
            let new = &moved_inodes[place].1;
            match linkat(dir, name, staging, key(new.inode), AtFlags::empty()) {
                Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
                Err(errno) => _ = failed.lock().get_or_insert(errno),
            }
        }
    };
    visit(old, &collect)?;
    failed.into_inner().map_or(Ok(()), |errno| Err(errno).call("linkat"))
}
