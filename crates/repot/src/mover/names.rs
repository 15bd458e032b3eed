//! Moves one name that is no directory.

use alloc::borrow::Cow;
use core::cell::Cell;
use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, mknodat, openat, readlinkat_raw, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::both::Existing;
use super::data::Buffer;
use super::entries::{Mover, Onto};
use super::file::{FileCopy, NO_FOLLOW, merge_contents};
use super::links::{Claim, NewInode};
use crate::error::{Call, Fault};
use crate::metadata::{At, Meta};
use crate::walk::{Pair, has_vanished};

impl Mover<'_> {
    /// Moves an entry that is no directory. Returns whether there was anything to move.
    pub(super) fn move_entry(
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
                // In a rollback, it may never have moved.
                remove(dir, name)?;
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
        let removed = if same { remove(dir, name) } else { Err(Errno::NOENT).call("unlinkat") };
        match removed {
            Err(fault) if self.has_vanished(fault.errno) => {
                let lives = matches!(at, At::Open(_)) && Meta::read(at)?.links > 0;
                if let Some(created) = created.filter(|_| lives) {
                    self.links.stage(meta.inode, dir.new.as_fd(), to)?;
                    self.links.moved(meta.inode, created);
                }
                unlinkat(&dir.new, to, AtFlags::empty()).call("unlinkat")?;
            }
            removed => removed?,
        }
        Ok(true)
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
        let make = |to: &CStr| {
            if link {
                symlinkat(target, &dir.new, to)
            } else {
                mknodat(&dir.new, to, meta.kind, meta.mode, meta.node)
            }
        };
        let to = match make(name) {
            Err(Errno::EXIST) => match self.existing(dir, name, meta)? {
                Existing::Moved | Existing::Partly => {
                    return if self.onto == Onto::Undo {
                        remove(dir, name).map(|()| true)
                    } else {
                        Ok(false)
                    };
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
                Existing::Moved if self.onto == Onto::Undo => return remove(dir, name).map(|()| true),
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
            // Another process has truncated it meanwhile, and may have written it again.
            Err(fault)
                if self.settings.beside
                    && fault.errno == Errno::IO
                    && !copy.freed
                    && Meta::read(At::Open(old)).is_ok_and(|now| now.was_written(meta)) =>
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
        remove(dir, name)?;
        Ok(true)
    }

    /// What an entry of the new tree is that has the name of the entry `meta` of the old tree.
    fn existing(&self, dir: &Pair, name: &CStr, meta: &Meta) -> Result<Existing, Fault> {
        let Some(before) = self.before else { return Ok(Existing::Other) };
        let there = Meta::read(At::Named(dir.new.as_fd(), name))?;
        let lost = before.has_lost_worker() && there.kind == meta.kind;
        let existing = before.pair(there.inode, meta.inode);
        Ok(if lost && existing == Existing::Other { Existing::Moved } else { existing })
    }
}

/// Unlinks the old name. No entry is a mount point: the mounts are parked.
fn remove(dir: &Pair, name: &CStr) -> Result<(), Fault> {
    unlinkat(&dir.old, name, AtFlags::empty()).call("unlinkat")
}
