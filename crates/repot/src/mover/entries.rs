//! Moves each entry of the tree: copy it, free it, next.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, fchmod, fremovexattr, mkdirat, mknodat, openat, readlinkat_raw,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::data::Buffer;
use super::file::{FileCopy, NO_FOLLOW, Settings, merge_contents};
use super::links::{Claim, Links, NewInode};
use crate::error::{Call, Fault};
use crate::metadata::{At, Meta};
use crate::sys;
use crate::walk::{Entered, Pair, Visitor, open};

/// The mode of a directory in the new tree that has not been left. By it a rollback recognizes the
/// directories in which a worker was lost.
const UNFINISHED: Mode = Mode::RWXU.union(Mode::SVTX);

/// The mode of a directory that was unpacked from a payload and has not got its attributes yet.
pub(crate) const UNPACKED: Mode = Mode::RWXU;

/// State of a directory, kept until its contents have been moved.
#[derive(Debug)]
pub(crate) struct DirMeta {
    pub(crate) meta: Meta,
    pub(crate) flags: IFlags,
    /// Whether the directory in the new tree comes from a payload, which will set its attributes.
    pub(crate) merged: bool,
}

/// The contents of the destination before the move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onto {
    /// Nothing.
    Fresh,
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
}

impl Visitor for Mover<'_> {
    type Dir = Pair;
    type Meta = DirMeta;
    type Scratch = Buffer;
    const REMOVES: bool = true;

    fn enter(&self, dir: &Pair, name: &CStr) -> Result<Entered<Self>, Fault> {
        self.check_memory()?;
        let existed = match mkdirat(&dir.new, name, UNFINISHED) {
            // Another thread is moving it.
            Err(Errno::EXIST) if !self.may_merge(&dir.new, name)? => return Ok(None),
            Err(Errno::EXIST) => true,
            created => created.call("mkdirat").map(|()| false)?,
        };
        let open = || {
            let old = open(&dir.old, name)?;
            let mut meta = Meta::read(At::Open(old.as_fd()))?;
            let new = open(&dir.new, name)?;
            if existed && self.onto == Onto::Undo && meta.mode == UNFINISHED {
                meta = Meta::read(At::Open(new.as_fd()))?;
            } else if existed {
                disable_inheritance(new.as_fd())?;
            }
            let flags = self.settings.attributes.clear_flags(old.as_fd())?;
            Ok((Pair { old, new }, DirMeta { meta, flags, merged: existed && self.onto == Onto::Payload }))
        };
        open().map(Some).inspect_err(|_| {
            if !existed {
                let _ = unlinkat(&dir.new, name, AtFlags::REMOVEDIR);
            }
        })
    }

    fn entry(&self, buffer: &mut Buffer, dir: &Pair, name: &CStr, kind: FileType) -> Result<(), Fault> {
        self.check_memory()?;
        if kind == FileType::RegularFile {
            let old = openat(&dir.old, name, OFlags::RDONLY | OFlags::NOATIME | NO_FOLLOW, Mode::empty())
                .call("openat")?;
            let meta = Meta::read(At::Open(old.as_fd()))?;
            self.move_name(dir, name, &meta, |first| self.move_file(buffer, dir, name, &old, &meta, first))
        } else {
            let meta = Meta::read(At::Named(dir.old.as_fd(), name))?;
            self.move_name(dir, name, &meta, |first| self.move_special(dir, name, &meta, first))
        }
    }

    fn assist(&self, buffer: &mut Buffer) -> bool {
        self.settings.large_files.assist(buffer, self.settings.folios, self.settings.progress)
    }

    fn abandon(&self) {
        self.links.abandon();
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
        if parent.is_none() && complete {
            self.links.clear()?;
        }
        let (old, new) = (At::Open(dir.old.as_fd()), At::Open(dir.new.as_fd()));
        let finish = || {
            let copied = self.settings.attributes.copy(&kept.meta, old, new, false);
            let flagged = self.settings.attributes.set_flags(dir.new.as_fd(), kept.flags);
            copied.and(flagged)
        };
        // A rollback reads the attributes from the new directory, so they are set even if one of them fails.
        // Retried once.
        if !kept.merged {
            finish().inspect_err(|_| _ = finish())?;
        }
        let (Some((above, name)), true) = (parent, complete) else { return Ok(()) };
        unlinkat(&above.old, name, AtFlags::REMOVEDIR).call("unlinkat")?;
        self.settings.progress.add_entry();
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

    /// Moves one name: with `make` if it is the first of its inode, otherwise by linking it.
    fn move_name(
        &self,
        dir: &Pair,
        name: &CStr,
        meta: &Meta,
        make: impl FnOnce(bool) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match self.links.claim(meta.inode, meta.links)? {
            Claim::Only => make(false)?,
            Claim::First => make(true).inspect_err(|_| self.links.give_up(meta.inode))?,
            Claim::Again => {
                match self.links.link(meta.inode, dir.new.as_fd(), name) {
                    // In a rollback, it may never have moved.
                    Ok(()) | Err(Errno::EXIST) => {}
                    failed => failed.call("linkat")?,
                }
                self.remove(dir, name)?;
            }
        }
        self.settings.progress.add_entry();
        Ok(())
    }

    /// Unlinks the old name. No entry is a mount point any more: the mounts are parked.
    fn remove(&self, dir: &Pair, name: &CStr) -> Result<(), Fault> {
        unlinkat(&dir.old, name, AtFlags::empty()).call("unlinkat")
    }

    /// Moves an entry that is neither a regular file nor a directory.
    fn move_special(&self, dir: &Pair, name: &CStr, meta: &Meta, first: bool) -> Result<(), Fault> {
        let (old, new) = (At::Named(dir.old.as_fd(), name), At::Named(dir.new.as_fd(), name));
        // readlink(2) changes the access time of a symbolic link, so an error path restores it.
        let restore_times = || utimensat(&dir.old, name, &meta.times(), AtFlags::SYMLINK_NOFOLLOW);
        let created = if meta.kind == FileType::Symlink {
            let mut target = [0; 4096];
            let length = readlinkat_raw(&dir.old, name, &mut target[..]).call("readlinkat")?;
            symlinkat(&target[..length], &dir.new, name).inspect_err(|_| {
                let _ = restore_times();
            })
        } else {
            mknodat(&dir.new, name, meta.kind, meta.mode, meta.node)
        };
        match created {
            // The failed move had copied it and not yet removed it.
            Err(Errno::EXIST) if self.onto == Onto::Undo => {
                return self.remove(dir, name);
            }
            created => created.call(if meta.kind == FileType::Symlink { "symlinkat" } else { "mknodat" })?,
        }
        let finish = || {
            self.settings.attributes.copy(meta, old, new, true)?;
            if !first {
                return self.remove(dir, name);
            }
            let created = Meta::read(new)?.inode;
            self.links.stage(meta.inode, dir.new.as_fd(), name)?;
            self.remove(dir, name)?;
            self.links.moved(meta.inode, NewInode { inode: created, flags: IFlags::empty() });
            Ok(())
        };
        finish().inspect_err(|_| {
            let _ = unlinkat(&dir.new, name, AtFlags::empty());
            let _ = restore_times();
        })
    }

    /// Moves a regular file, which is open as `old`.
    fn move_file(
        &self,
        buffer: &mut Buffer,
        dir: &Pair,
        name: &CStr,
        old: &OwnedFd,
        meta: &Meta,
        first: bool,
    ) -> Result<(), Fault> {
        let create = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | NO_FOLLOW;
        let new = match openat(&dir.new, name, create, meta.mode) {
            Err(Errno::EXIST) if self.onto == Onto::Undo => {
                return self.merge_file(buffer, dir, name, old, meta);
            }
            created => created.call("openat")?,
        };
        let flags = self.settings.attributes.clear_flags(old.as_fd());
        let mut copy = FileCopy::new(&self.settings, meta, old.as_fd(), new.as_fd());
        let mut created = None;
        let moved = flags.clone().and_then(|flags| {
            if first {
                created = Some(Meta::read(At::Open(new.as_fd()))?.inode);
                self.links.stage(meta.inode, dir.new.as_fd(), name)?;
            }
            copy.run(buffer, dir, name, first)?;
            if !first {
                self.settings.attributes.set_flags(new.as_fd(), flags)?;
            }
            self.remove(dir, name)
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
                let _ = unlinkat(&dir.new, name, AtFlags::empty());
            }
            if let Ok(flags) = flags
                && !(first && copy.freed)
            {
                let _ = self
                    .settings
                    .attributes
                    .set_flags(if copy.freed { new.as_fd() } else { old.as_fd() }, flags);
            }
        }
        if let Some(created) = created
            && (moved.is_ok() || copy.freed)
        {
            let flags = flags.unwrap_or(IFlags::empty());
            self.links.moved(meta.inode, NewInode { inode: created, flags });
        }
        moved
    }

    /// Rolls back a partly moved file: restores the end that the destination has lost.
    fn merge_file(
        &self,
        buffer: &mut Buffer,
        dir: &Pair,
        name: &CStr,
        old: &OwnedFd,
        meta: &Meta,
    ) -> Result<(), Fault> {
        let flags = self.settings.attributes.clear_flags(old.as_fd())?;
        merge_contents(
            self.settings.attributes,
            self.settings.holes,
            buffer,
            (dir.old.as_fd(), name),
            (dir.new.as_fd(), name),
            meta,
        )?;
        let new = openat(&dir.new, name, OFlags::RDONLY | NO_FOLLOW, Mode::empty()).call("openat")?;
        self.settings.attributes.set_flags(new.as_fd(), flags)?;
        self.remove(dir, name)
    }

    /// Whether to enter a directory that exists in the new tree. In a payload, only directories that were not
    /// entered yet, recognized by their mode.
    fn may_merge(&self, dir: &OwnedFd, name: &CStr) -> Result<bool, Fault> {
        let is_unpacked = |meta: Meta| meta.kind == FileType::Directory && meta.mode == UNPACKED;
        match self.onto {
            Onto::Fresh => Ok(false),
            Onto::Undo => Ok(true),
            Onto::Payload => Meta::read(At::Named(dir.as_fd(), name)).map(is_unpacked),
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
