//! Moves everything back after a move that failed.
//!
//! What the failed move had freed is whole in the new tree, so this is the same move with the roots exchanged, told to merge.
//! Only hard links need more: names that are still in the old tree belong to inodes whose contents have gone. They are
//! collected first, so that the names that come back are linked to them.
//!
//! It needs no thread of its own, since there may be none to be had.

use alloc::collections::BTreeMap;
use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, openat};
use rustix::io::Errno;

use crate::data::{Buffer, Holes};
use crate::error::{Call, Fault};
use crate::file::merge_contents;
use crate::folios::Folios;
use crate::links::{Links, Moved};
use crate::metadata::{At, Attributes, Meta};
use crate::mover::{DirMeta, Mover, Pair, Progress, plain};
use crate::ranges::Board;
use crate::sys::Event;
use crate::walk::{Visitor, walk};

/// Moves what is in `new` back to `old`, the root whose own attributes were `root`.
pub(crate) fn undo(
    old: &OwnedFd,
    new: &OwnedFd,
    root: DirMeta,
    attributes: Attributes,
    links: &Links,
) -> Result<(), Fault> {
    let back = Links::new(old.as_fd(), new.as_fd())?;
    let survivors: BTreeMap<u64, Moved> = links.pairs().into_iter().collect();
    if !survivors.is_empty() {
        let finder = Survivors { known: &survivors, back: &back, bell: Event::new() };
        let found = openat(old, c".", finder.directory(), Mode::empty()).call("openat")?;
        walk(&finder, found, (), 0, &|| ()).map_err(|broken| broken.fault)?;
        for (was, is) in &survivors {
            restore(attributes, links, &back, *was, *is)?;
        }
    }
    links.clear()?;
    let progress = Progress::default();
    let mover = Mover {
        attributes,
        holes: Holes::Seek,
        program: None,
        links: &back,
        back: true,
        over: false,
        wipe: false,
        folios: &Folios::as_they_come(),
        board: &Board::new(1),
        progress: &progress,
    };
    plain(old.as_fd())?;
    let pair = Pair { old: reopen(new)?, new: reopen(old)? };
    walk(&mover, pair, root, 0, &|| ()).map_err(|broken| broken.fault)
}

fn reopen(root: &OwnedFd) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    openat(root, c".", flags, Mode::empty()).call("openat")
}

/// Gives the old inode `was` its contents back from the new inode `is`, where a name of the old one was found.
fn restore(attributes: Attributes, links: &Links, back: &Links, was: u64, is: Moved) -> Result<(), Fault> {
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
    back.moved(is.inode, Moved { inode: was, flags: is.flags });
    links.forget(was)
}

/// Collects the names in the old tree whose inodes have been moved: each is linked under the number of its new inode.
#[derive(Debug)]
struct Survivors<'a> {
    known: &'a BTreeMap<u64, Moved>,
    back: &'a Links,
    bell: Event,
}

impl Survivors<'_> {
    fn directory(&self) -> OFlags {
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME
    }
}

impl Visitor for Survivors<'_> {
    type Dir = OwnedFd;
    type Meta = ();
    type Scratch = ();
    const REMOVES: bool = false;
    const DESCRIPTORS: usize = 1;

    fn bell(&self) -> &Event {
        &self.bell
    }
    fn list(dir: &OwnedFd) -> BorrowedFd<'_> {
        dir.as_fd()
    }
    fn parent(&self, dir: &OwnedFd) -> Result<OwnedFd, Fault> {
        openat(dir, c"..", self.directory(), Mode::empty()).call("openat")
    }
    fn entry(&self, (): &mut (), dir: &OwnedFd, name: &CStr, _: FileType) -> Result<(), Fault> {
        let inode = Meta::read(At::Named(dir.as_fd(), name))?.inode;
        let Some(new) = self.known.get(&inode) else { return Ok(()) };
        let (staging, key) = self.back.staging();
        match linkat(dir, name, staging, key(new.inode), AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            failed => failed.call("linkat"),
        }
    }
    fn enter(&self, dir: &OwnedFd, name: &CStr) -> Result<Option<(OwnedFd, ())>, Fault> {
        openat(dir, name, self.directory(), Mode::empty()).call("openat").map(|dir| Some((dir, ())))
    }
    fn leave(
        &self,
        (): &mut (),
        _: Option<(&OwnedFd, &CStr)>,
        _: &OwnedFd,
        (): &(),
        _: bool,
    ) -> Result<(), Fault> {
        Ok(())
    }
}
