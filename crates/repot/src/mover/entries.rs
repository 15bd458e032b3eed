//! Moves each entry of the tree: copy it, free it, next.

use alloc::borrow::Cow;
use alloc::ffi::CString;
use core::cell::Cell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, fchmod, fremovexattr, ftruncate, mkdirat, mknodat, openat,
    readlinkat_raw, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::both::{Both, Existing, spare_name};
use super::data::Buffer;
use super::file::{FileCopy, NO_FOLLOW, Settings, merge_contents};
use super::links::{Claim, Links, NewInode};
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
                // Another thread is moving it, or its mount point stayed in the old tree.
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
            // The directory is a mount point.
            Err(Errno::BUSY) => {
                self.settings.progress.add_kept();
                self.settings.both.stay(Meta::read(At::Open(dir.old.as_fd()))?.inode);
            }
            // It is above a mount point, or above entries that another pass moves.
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
    fn has_vanished(&self, errno: Errno) -> bool {
        self.onto != Onto::Undo && has_vanished(errno)
    }

    /// Moves an entry that is no directory. Returns whether there was anything to move.
    fn move_entry(
        &self,
        buffer: &mut Buffer,
        dir: &Pair,
        name: &CStr,
        kind: FileType,
    ) -> Result<bool, Fault> {
        let opened;
        let at = if kind == FileType::RegularFile {
            opened = openat(&dir.old, name, OFlags::RDONLY | OFlags::NOATIME | NO_FOLLOW, Mode::empty())
                .call("openat")?;
            At::Open(opened.as_fd())
        } else {
            At::Named(dir.old.as_fd(), name)
        };
        let meta = Meta::read(at)?;
        if meta.kind != kind || self.later.contains(&meta.inode) {
            return Ok(false);
        }
        let make = |buffer: &mut Buffer, first| match at {
            At::Open(old) => self.move_file(buffer, dir, name, old, &meta, first),
            At::Named(..) => self.move_special(dir, name, &meta, first),
        };
        match self.links.claim(meta.inode, meta.links)? {
            Claim::Only => make(buffer, false),
            Claim::First => {
                let made = make(buffer, true);
                // Does nothing if it was moved.
                self.links.give_up(meta.inode);
                made
            }
            Claim::Again => self.link(dir, name, at, &meta),
        }
    }

    /// Moves a name whose inode is in the new tree.
    fn link(&self, dir: &Pair, name: &CStr, at: At<'_>, meta: &Meta) -> Result<bool, Fault> {
        let link = |to: &CStr| self.links.link(meta.inode, dir.new.as_fd(), to);
        match link(name) {
            Err(Errno::EXIST) => {
                let there = Meta::read(At::Named(dir.new.as_fd(), name))?.inode;
                if self.links.new_inode(meta.inode) != Some(there) {
                    let to = self.under_spare_name(dir, name, &link).call("linkat")?;
                    return self.free(dir, name, &to, at, meta, None);
                }
                // Moved already, but it stayed because it is a mount point; or, in a rollback, it never
                // moved.
                self.remove(dir, name)?;
                Ok(self.onto == Onto::Undo)
            }
            linked => {
                linked.call("linkat")?;
                self.free(dir, name, name, at, meta, None)
            }
        }
    }

    /// Removes the old name of an entry that is in the new tree as `to`. `created` is its inode there, unless
    /// it has been staged. Returns whether anything was moved.
    ///
    /// If another process has removed or replaced the old name, the new one goes too. If the inode lives on
    /// under another name, that name is linked to the new inode as soon as it is found.
    fn free(
        &self,
        dir: &Pair,
        name: &CStr,
        to: &CStr,
        at: At<'_>,
        meta: &Meta,
        created: Option<NewInode>,
    ) -> Result<bool, Fault> {
        let same = !self.settings.beside
            || Meta::read(At::Named(dir.old.as_fd(), name)).is_ok_and(|now| now.inode == meta.inode);
        let removed = if same { self.remove(dir, name) } else { Err(Errno::NOENT).call("unlinkat") };
        match removed {
            Ok(true) => {
                let there = Meta::read(At::Named(dir.new.as_fd(), to))?.inode;
                self.settings.both.keep(meta.inode, there);
            }
            Err(fault) if self.has_vanished(fault.errno) => {
                let lives = matches!(at, At::Open(_)) && Meta::read(at)?.links > 0;
                if let Some(created) = created.filter(|_| lives) {
                    self.links.stage(meta.inode, dir.new.as_fd(), to)?;
                    self.links.moved(meta.inode, created);
                }
                unlinkat(&dir.new, to, AtFlags::empty()).call("unlinkat")?;
            }
            removed => drop(removed?),
        }
        Ok(true)
    }

    /// Unlinks the old name. A mount point cannot be unlinked yet, so its contents are freed instead. Returns
    /// whether it stays.
    fn remove(&self, dir: &Pair, name: &CStr) -> Result<bool, Fault> {
        match unlinkat(&dir.old, name, AtFlags::empty()) {
            Err(Errno::BUSY) => {
                self.settings.progress.add_kept();
                if Meta::read(At::Named(dir.old.as_fd(), name))?.allocated > 0 {
                    let file =
                        openat(&dir.old, name, OFlags::WRONLY | NO_FOLLOW, Mode::empty()).call("openat")?;
                    ftruncate(&file, 0).call("ftruncate")?;
                }
                Ok(true)
            }
            removed => removed.call("unlinkat").map(|()| false),
        }
    }

    /// Moves an entry that is neither a regular file nor a directory.
    fn move_special(&self, dir: &Pair, name: &CStr, meta: &Meta, first: bool) -> Result<bool, Fault> {
        let old = At::Named(dir.old.as_fd(), name);
        // readlink(2) changes the access time of a symbolic link, so an error path restores it.
        let restore_times = || utimensat(&dir.old, name, &meta.times(), AtFlags::SYMLINK_NOFOLLOW);
        let mut target = [0; 4096];
        let link = meta.kind == FileType::Symlink;
        let mut length = 0;
        if link {
            length = readlinkat_raw(&dir.old, name, &mut target[..]).call("readlinkat")?;
        }
        let target = &target[..length];
        let make = |to: &CStr| match meta.kind {
            FileType::Symlink => symlinkat(target, &dir.new, to),
            _ => mknodat(&dir.new, to, meta.kind, meta.mode, meta.node),
        };
        let to = match make(name) {
            Err(Errno::EXIST) => match self.existing(dir, name, meta)? {
                Existing::Moved | Existing::Partly => {
                    return if self.onto == Onto::Undo { self.remove(dir, name) } else { Ok(false) };
                }
                Existing::Other => self.under_spare_name(dir, name, &make).map(Cow::Owned),
            },
            made => made.map(|()| Cow::Borrowed(name)),
        };
        let to = to.inspect_err(|_| _ = restore_times()).call(if link { "symlinkat" } else { "mknodat" })?;
        let new = At::Named(dir.new.as_fd(), &to);
        let finish = || {
            self.settings.attributes.copy(meta, old, new, true, self.settings.skipped)?;
            if !first {
                return self.free(dir, name, &to, old, meta, None);
            }
            let created = Meta::read(new)?.inode;
            self.links.stage(meta.inode, dir.new.as_fd(), &to)?;
            self.free(dir, name, &to, old, meta, None)?;
            self.links.moved(meta.inode, NewInode { inode: created, flags: IFlags::empty() });
            Ok(true)
        };
        finish().inspect_err(|_| {
            let _ = unlinkat(&dir.new, &*to, AtFlags::empty());
            let _ = restore_times();
        })
    }

    /// Moves a regular file, which is open as `old`.
    fn move_file(
        &self,
        buffer: &mut Buffer,
        dir: &Pair,
        name: &CStr,
        old: BorrowedFd<'_>,
        meta: &Meta,
        first: bool,
    ) -> Result<bool, Fault> {
        let create = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | NO_FOLLOW;
        let make = |to: &CStr| openat(&dir.new, to, create, meta.mode);
        let (new, to) = match make(name) {
            Err(Errno::EXIST) => match self.existing(dir, name, meta)? {
                Existing::Moved if self.onto == Onto::Undo => return self.remove(dir, name),
                Existing::Moved => return Ok(false),
                Existing::Partly => return self.merge_file(buffer, dir, name, old, meta),
                Existing::Other => {
                    let new = Cell::new(None);
                    let make = |to: &CStr| make(to).map(|file| new.set(Some(file)));
                    let to = self.under_spare_name(dir, name, &make).call("openat")?;
                    (new.take().ok_or(Errno::NOENT).call("openat")?, Cow::Owned(to))
                }
            },
            created => (created.call("openat")?, Cow::Borrowed(name)),
        };
        let flags = self.settings.attributes.clear_flags(old);
        let mut copy = FileCopy::new(&self.settings, meta, old, new.as_fd());
        let mut created = None;
        let moved = flags.clone().and_then(|flags| {
            if first || self.settings.beside {
                let inode = Meta::read(At::Open(new.as_fd()))?.inode;
                created = Some(NewInode { inode, flags });
            }
            if first {
                self.links.stage(meta.inode, dir.new.as_fd(), &to)?;
            }
            copy.run(buffer, dir, name, first)?;
            if !first {
                self.settings.attributes.set_flags(new.as_fd(), flags)?;
            }
            self.free(dir, name, &to, At::Open(old), meta, created.filter(|_| !first))
        });
        self.settings.progress.freed(copy.duplicated);
        if moved.is_err() {
            if copy.freed {
                // The new file holds what the old one has lost. A rollback starts from the new file.
                let _ = copy.attributes();
            } else {
                // The new file may have its inode flags already, and the kernel does not unlink an immutable
                // file.
                let _ = self.settings.attributes.clear_flags(new.as_fd());
                let _ = unlinkat(&dir.new, &*to, AtFlags::empty());
            }
            if let Ok(flags) = flags
                && !(first && copy.freed)
            {
                let file = if copy.freed { new.as_fd() } else { old };
                let _ = self.settings.attributes.set_flags(file, flags);
            }
        } else if copy.freed {
            self.settings.both.whole(meta.inode);
        }
        if let Some(created) = created
            && first
            && (moved.is_ok() || copy.freed)
        {
            self.links.moved(meta.inode, created);
        }
        match moved {
            // Another process has truncated it meanwhile.
            Err(fault)
                if self.settings.beside
                    && fault.errno == Errno::IO
                    && !copy.freed
                    && Meta::read(At::Open(old)).is_ok_and(|now| now.size < meta.size) =>
            {
                Ok(false)
            }
            // Not to be taken for a file that has vanished.
            Err(fault) if copy.freed && has_vanished(fault.errno) => {
                Err(Fault { errno: Errno::STALE, ..fault })
            }
            moved => moved,
        }
    }

    /// Rolls back a partly moved file: restores the end that the destination has lost.
    fn merge_file(
        &self,
        buffer: &mut Buffer,
        dir: &Pair,
        name: &CStr,
        old: BorrowedFd<'_>,
        meta: &Meta,
    ) -> Result<bool, Fault> {
        let flags = self.settings.attributes.clear_flags(old)?;
        merge_contents(
            self.settings.attributes,
            self.settings.skipped,
            buffer,
            (dir.old.as_fd(), name),
            (dir.new.as_fd(), name),
            meta,
        )?;
        let new = openat(&dir.new, name, OFlags::RDONLY | NO_FOLLOW, Mode::empty()).call("openat")?;
        self.settings.attributes.set_flags(new.as_fd(), flags)?;
        self.remove(dir, name)?;
        Ok(true)
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

    /// What an entry of the new tree is that has the name of the entry `meta` of the old tree.
    fn existing(&self, dir: &Pair, name: &CStr, meta: &Meta) -> Result<Existing, Fault> {
        let Some(before) = self.before else { return Ok(self.settings.both.existing(meta.inode)) };
        let there = Meta::read(At::Named(dir.new.as_fd(), name))?;
        let lost = before.has_lost_worker() && there.kind == meta.kind;
        Ok(match before.pair(there.inode, meta.inode) {
            Existing::Other if lost => Existing::Moved,
            existing => existing,
        })
    }

    /// Calls `make` with names that are not taken, until one works: the entry that has the name `name` is
    /// another one, so both are kept.
    fn under_spare_name(
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
