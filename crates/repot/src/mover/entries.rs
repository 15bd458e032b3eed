//! Moves each entry of the tree: copy it, free it, next. Directories are here, everything else is in `names`.

use alloc::borrow::Cow;
use alloc::ffi::CString;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, FileType, IFlags, Mode, fchmod, fremovexattr, mkdirat, unlinkat};
use rustix::io::Errno;

use super::both::{Both, Existing, spare_name};
use super::data::Buffer;
use super::file::Settings;
use super::links::Links;
use crate::error::{Call, Fault};
use crate::metadata::{At, Meta};
use crate::sys;
use crate::walk::{Entered, Pair, Visitor, has_vanished, open};

/// The mode of a directory in the new tree that has not been left. By it a rollback recognizes the
/// directories in which a worker was lost.
const UNFINISHED: Mode = Mode::RWXU.union(Mode::SVTX);

/// The mode of a directory that was unpacked from a payload and has not got its attributes yet.
pub(crate) const UNPACKED: Mode = Mode::RWXU;

/// State of a directory, kept until its contents have been moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirMeta {
    pub(crate) meta: Meta,
    pub(crate) flags: IFlags,
    /// Whether the directory in the new tree comes from a payload, which will set its attributes.
    pub(crate) merged: bool,
    /// Whether it was in the new tree before.
    pub(crate) existed: bool,
}

/// The contents of the destination before the move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onto {
    /// Nothing.
    Fresh,
    /// What an earlier pass of the same move has moved. Its directories are merged, and each of them is
    /// entered once.
    Again,
    /// Parts of the same tree: a failed move is rolled back.
    Undo,
    /// The tree of a payload. Its directories ([`UNPACKED`]) are merged, and the payload sets their
    /// attributes.
    Payload,
}

/// The move from one tree to another.
#[derive(Debug)]
pub(super) struct Mover<'a> {
    pub(super) settings: Settings<'a>,
    pub(super) links: &'a Links,
    pub(super) onto: Onto,
    /// In a rollback, the entries that the failed move left in both trees.
    pub(super) before: Option<&'a Both>,
    /// Inode numbers of the few entries that a later pass moves.
    pub(super) later: &'a [u64],
    /// The number of entries moved, or at least found, by this pass.
    pub(super) moved: AtomicU64,
}

impl Visitor for Mover<'_> {
    type Dir = Pair;
    type Meta = DirMeta;
    type Scratch = Buffer;

    fn enter(&self, dir: &Pair, name: &CStr) -> Result<Entered<Self>, Fault> {
        self.check_memory()?;
        let (existed, to) = match mkdirat(&dir.new, name, UNFINISHED) {
            Err(Errno::EXIST) => match self.existing_directory(dir, name)? {
                // Another thread is moving it.
                Existing::Moved => return Ok(None),
                Existing::Partly => (true, Cow::Borrowed(name)),
                Existing::Other => {
                    let make = |to: &CStr| mkdirat(&dir.new, to, UNFINISHED);
                    let to = self.under_spare_name(dir, name, &make).call("mkdirat")?;
                    (false, Cow::Owned(to))
                }
            },
            created => created.call("mkdirat").map(|()| (false, Cow::Borrowed(name)))?,
        };
        let open = || {
            let old = open(&dir.old, name)?;
            let mut meta = Meta::read(At::Open(old.as_fd()))?;
            if self.later.contains(&meta.inode)
                || (existed && self.onto == Onto::Again && !self.settings.both.stay(meta.inode))
            {
                return Ok(None);
            }
            let new = open(&dir.new, &to)?;
            let attributes = self.settings.attributes;
            let mut flags = attributes.clear_flags(old.as_fd())?;
            if existed && self.onto == Onto::Again {
                // It got its attributes when the last pass left it.
                meta = Meta::read(At::Open(new.as_fd()))?;
                flags = attributes.clear_flags(new.as_fd())?;
                // It will not be left, so nothing else restores what a rollback reads.
                disable_inheritance(new.as_fd()).inspect_err(|_| {
                    let _ = fchmod(&new, meta.mode);
                    let _ = attributes.set_flags(new.as_fd(), flags);
                })?;
            } else if existed && self.onto == Onto::Undo && meta.mode == UNFINISHED {
                meta = Meta::read(At::Open(new.as_fd()))?;
            } else if existed {
                disable_inheritance(new.as_fd())?;
            }
            let merged = existed && self.onto == Onto::Payload;
            Ok(Some((Pair { old, new }, DirMeta { meta, flags, merged, existed })))
        };
        let entered: Result<_, Fault> = open();
        if !existed && !matches!(entered, Ok(Some(_))) {
            let _ = unlinkat(&dir.new, &*to, AtFlags::REMOVEDIR);
        }
        match entered {
            Err(fault) if self.has_vanished(fault.errno) => Ok(None),
            entered => entered,
        }
    }

    fn entry(&self, buffer: &mut Buffer, dir: &Pair, name: &CStr, kind: FileType) -> Result<(), Fault> {
        self.check_memory()?;
        match self.move_entry(buffer, dir, name, kind) {
            Ok(false) => {}
            Ok(true) => {
                self.moved.fetch_add(1, Ordering::Relaxed);
                self.settings.progress.add_entry();
            }
            // Nothing of it was moved, or it would be another error.
            Err(fault) if self.has_vanished(fault.errno) => {}
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    fn removes(&self) -> bool {
        true
    }

    fn assist(&self, buffer: &mut Buffer) -> bool {
        self.settings.large_files.assist(buffer, self.settings.folios, self.settings.progress)
    }

    fn abandon(&self) {
        self.links.abandon();
        self.settings.both.lost_worker();
        self.settings.large_files.abandon();
    }

    fn leave(
        &self,
        _: &mut Buffer,
        parent: Option<(&Pair, &CStr)>,
        dir: &Pair,
        kept: &DirMeta,
        complete: bool,
    ) -> Result<(), Fault> {
        // The root is finished after the last pass.
        let Some((above, name)) = parent else { return Ok(()) };
        // A rollback reads the attributes from the new directory, so they are set even if one of them fails.
        // Retried once.
        if !kept.merged {
            self.finish(dir, kept).or_else(|_| self.finish(dir, kept))?;
        }
        if !complete {
            return Ok(());
        }
        match unlinkat(&above.old, name, AtFlags::REMOVEDIR) {
            // It holds entries that another pass moves.
            Err(Errno::NOTEMPTY) if self.onto != Onto::Undo => {
                self.settings.both.stay(Meta::read(At::Open(dir.old.as_fd()))?.inode);
            }
            Err(errno) if self.has_vanished(errno) => {}
            removed => removed.call("unlinkat")?,
        }
        if !kept.existed {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        if !kept.existed || self.onto != Onto::Again {
            self.settings.progress.add_entry();
        }
        Ok(())
    }
}

impl Mover<'_> {
    /// Fails once the memory reserve is in use: it is for the rollback. Over a payload nothing can be rolled
    /// back, so the move goes on.
    fn check_memory(&self) -> Result<(), Fault> {
        if self.onto == Onto::Fresh && sys::is_memory_short() {
            Err(Errno::NOMEM).call("malloc")
        } else {
            Ok(())
        }
    }

    /// Sets all attributes of a directory in the new tree.
    pub(super) fn finish(&self, dir: &Pair, kept: &DirMeta) -> Result<(), Fault> {
        let (old, new) = (At::Open(dir.old.as_fd()), At::Open(dir.new.as_fd()));
        let Settings { attributes, skipped, .. } = &self.settings;
        let copied = attributes.copy(&kept.meta, old, new, false, skipped);
        let flagged = attributes.set_flags(dir.new.as_fd(), kept.flags);
        copied.and(flagged)
    }

    /// Whether an error means that another process has removed or replaced an entry of the old tree. What it
    /// put there is for another pass. In a rollback the tree that is left is ours alone.
    pub(super) fn has_vanished(&self, errno: Errno) -> bool {
        self.onto != Onto::Undo && has_vanished(errno)
    }

    /// What an entry of the new tree is that has the name of a directory of the old one. In a payload, only
    /// directories that were not entered yet are merged; they are recognized by their mode.
    fn existing_directory(&self, dir: &Pair, name: &CStr) -> Result<Existing, Fault> {
        if self.onto == Onto::Fresh {
            return Ok(Existing::Moved);
        }
        let meta = Meta::read(At::Named(dir.new.as_fd(), name))?;
        Ok(match self.onto {
            Onto::Payload if meta.kind == FileType::Directory && meta.mode == UNPACKED => Existing::Partly,
            Onto::Fresh | Onto::Payload => Existing::Moved,
            Onto::Again | Onto::Undo if meta.kind == FileType::Directory => Existing::Partly,
            Onto::Again | Onto::Undo => Existing::Other,
        })
    }

    /// Calls `make` with names that are not taken, until one works: the entry that has the name `name` is
    /// another one, so both are kept.
    pub(super) fn under_spare_name(
        &self,
        dir: &Pair,
        name: &CStr,
        make: &dyn Fn(&CStr) -> Result<(), Errno>,
    ) -> Result<CString, Errno> {
        let mut number = 1;
        loop {
            let to = spare_name(name, number);
            match make(&to) {
                Err(Errno::EXIST) if number < 1000 => number += 1,
                made => {
                    made?;
                    self.settings.skipped.renamed(dir.old.as_fd(), name, &to);
                    return Ok(to);
                }
            }
        }
    }
}

/// Keeps entries created in a directory from inheriting its group or a default ACL. Both are set again when
/// the directory is left.
pub(crate) fn disable_inheritance(dir: BorrowedFd<'_>) -> Result<(), Fault> {
    fchmod(dir, UNFINISHED).call("fchmod")?;
    match fremovexattr(dir, c"system.posix_acl_default") {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error).call("fremovexattr"),
    }
}
