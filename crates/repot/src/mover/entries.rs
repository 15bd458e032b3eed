//! What a move does with each entry of the tree: copy it, free it, next.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, fchmod, fremovexattr, ftruncate, mkdirat, mknodat, openat,
    readlinkat_raw, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::data::Buffer;
use super::file::{FileCopy, Means, NO_FOLLOW, merge_contents};
use super::links::{Claim, Links, NewInode};
use crate::error::{Call, Fault};
use crate::metadata::{At, Meta};
use crate::sys;
use crate::walk::{Entered, Pair, Visitor, open};

/// The mode of a directory in the new tree that has not been left. A rollback knows by it the directories in
/// which a thread was lost.
const UNFINISHED: Mode = Mode::RWXU.union(Mode::SVTX);

/// The mode of a directory that was unpacked from a payload and has no attributes yet.
pub(crate) const UNPACKED: Mode = Mode::RWXU;

/// What is remembered of a directory until its contents have been moved.
#[derive(Debug)]
pub(crate) struct DirMeta {
    pub(crate) meta: Meta,
    pub(crate) flags: IFlags,
    /// Whether the directory in the new tree keeps the attributes that it will get from elsewhere.
    pub(crate) merged: bool,
}

/// What the tree holds that is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onto {
    /// Nothing.
    Fresh,
    /// Parts of what is moved: a failed move is rolled back.
    Undo,
    /// The directories of a payload ([`UNPACKED`]): they are merged, and keep the attributes that the payload
    /// gives them.
    Payload,
}

/// The move from one tree to another.
#[derive(Debug)]
pub(super) struct Mover<'a> {
    pub(super) means: Means<'a>,
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
        let there = match mkdirat(&dir.new, name, UNFINISHED) {
            // It exists because another thread is moving it, or because its mount point was left in the old
            // tree.
            Err(Errno::EXIST) if !self.may_merge(&dir.new, name)? => return Ok(None),
            Err(Errno::EXIST) => true,
            made => made.call("mkdirat").map(|()| false)?,
        };
        let open = || {
            let old = open(&dir.old, name)?;
            let mut meta = Meta::read(At::Open(old.as_fd()))?;
            let new = open(&dir.new, name)?;
            if there && self.onto == Onto::Undo && meta.mode == UNFINISHED {
                meta = Meta::read(At::Open(new.as_fd()))?;
            } else if there {
                plain(new.as_fd())?;
            }
            let flags = self.means.attributes.free(old.as_fd())?;
            Ok((Pair { old, new }, DirMeta { meta, flags, merged: there && self.onto == Onto::Payload }))
        };
        open().map(Some).inspect_err(|_| {
            if !there {
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
            self.name(dir, name, &meta, |first| self.file(buffer, dir, name, &old, &meta, first))
        } else {
            let meta = Meta::read(At::Named(dir.old.as_fd(), name))?;
            self.name(dir, name, &meta, |first| self.special(dir, name, &meta, first))
        }
    }

    fn assist(&self, buffer: &mut Buffer) -> bool {
        self.means.board.assist(buffer, self.means.folios, self.means.progress)
    }

    fn abandon(&self) {
        self.links.abandon();
        self.means.board.abandon();
    }

    fn leave(
        &self,
        _: &mut Buffer,
        parent: Option<(&Pair, &CStr)>,
        dir: &Pair,
        remembered: &DirMeta,
        complete: bool,
    ) -> Result<(), Fault> {
        if parent.is_none() && complete {
            self.links.clear()?;
        }
        let (old, new) = (At::Open(dir.old.as_fd()), At::Open(dir.new.as_fd()));
        let finish = || {
            let copied = self.means.attributes.copy(&remembered.meta, old, new, false);
            let bound = self.means.attributes.bind(dir.new.as_fd(), remembered.flags);
            copied.and(bound)
        };
        // A rollback reads the attributes from the new directory, so it gets all of them in any case.
        if !remembered.merged {
            finish().inspect_err(|_| _ = finish())?;
        }
        let (Some((above, name)), true) = (parent, complete) else { return Ok(()) };
        match unlinkat(&above.old, name, AtFlags::REMOVEDIR) {
            // A mount point, or above one.
            Err(Errno::BUSY) => {
                self.means.progress.add_kept();
            }
            Err(Errno::NOTEMPTY) if self.means.progress.kept() > 0 => {}
            removed => removed.call("unlinkat")?,
        }
        self.means.progress.add_entry();
        Ok(())
    }
}

impl Mover<'_> {
    /// Fails where what was set aside is in use: that is for undoing the move, and there is no undoing over a
    /// payload.
    fn check_memory(&self) -> Result<(), Fault> {
        if self.onto == Onto::Fresh && sys::is_memory_short() {
            Err(Errno::NOMEM).call("malloc")
        } else {
            Ok(())
        }
    }

    /// Moves one name: by `make` where it is the first of its inode, by linking where it is not.
    fn name(
        &self,
        dir: &Pair,
        name: &CStr,
        meta: &Meta,
        make: impl FnOnce(bool) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match self.links.claim(meta.inode, meta.links)? {
            Claim::Only => make(false)?,
            Claim::First => make(true).inspect_err(|_| self.links.gave_up(meta.inode))?,
            Claim::Again => {
                match self.links.link(meta.inode, dir.new.as_fd(), name) {
                    // Moved, but still there as a mount point; or never gone, when a move is undone.
                    Ok(()) | Err(Errno::EXIST) => {}
                    failed => failed.call("linkat")?,
                }
                self.remove(dir, name)?;
            }
        }
        self.means.progress.add_entry();
        Ok(())
    }

    /// Unlinks the old name. A mount point cannot be unlinked yet: what it holds is freed instead.
    fn remove(&self, dir: &Pair, name: &CStr) -> Result<(), Fault> {
        match unlinkat(&dir.old, name, AtFlags::empty()) {
            Err(Errno::BUSY) => {
                self.means.progress.add_kept();
                if Meta::read(At::Named(dir.old.as_fd(), name))?.allocated > 0 {
                    let file =
                        openat(&dir.old, name, OFlags::WRONLY | NO_FOLLOW, Mode::empty()).call("openat")?;
                    ftruncate(&file, 0).call("ftruncate")?;
                }
                Ok(())
            }
            removed => removed.call("unlinkat"),
        }
    }

    /// Moves what is neither a file nor a directory.
    fn special(&self, dir: &Pair, name: &CStr, meta: &Meta, first: bool) -> Result<(), Fault> {
        let (old, new) = (At::Named(dir.old.as_fd(), name), At::Named(dir.new.as_fd(), name));
        // Reading a symbolic link changes its access time.
        let unread = || utimensat(&dir.old, name, &meta.times(), AtFlags::SYMLINK_NOFOLLOW);
        let made = if meta.kind == FileType::Symlink {
            let mut target = [0; 4096];
            let length = readlinkat_raw(&dir.old, name, &mut target[..]).call("readlinkat")?;
            symlinkat(&target[..length], &dir.new, name).inspect_err(|_| {
                let _ = unread();
            })
        } else {
            mknodat(&dir.new, name, meta.kind, meta.mode, meta.node)
        };
        match made {
            // Moved before: it is a mount point, or the move that is undone had not removed it.
            Err(Errno::EXIST) if self.onto == Onto::Undo || self.means.progress.kept() > 0 => {
                return self.remove(dir, name);
            }
            made => made.call(if meta.kind == FileType::Symlink { "symlinkat" } else { "mknodat" })?,
        }
        let finish = || {
            self.means.attributes.copy(meta, old, new, true)?;
            if !first {
                return self.remove(dir, name);
            }
            let made = Meta::read(new)?.inode;
            self.links.stage(meta.inode, dir.new.as_fd(), name)?;
            self.remove(dir, name)?;
            self.links.moved(meta.inode, NewInode { inode: made, flags: IFlags::empty() });
            Ok(())
        };
        finish().inspect_err(|_| {
            let _ = unlinkat(&dir.new, name, AtFlags::empty());
            let _ = unread();
        })
    }

    /// Moves a regular file, which is open as `old`.
    fn file(
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
            Err(Errno::EXIST) if self.onto == Onto::Undo => return self.merge(buffer, dir, name, old, meta),
            Err(Errno::EXIST) if self.means.progress.kept() > 0 => return Ok(()),
            created => created.call("openat")?,
        };
        let flags = self.means.attributes.free(old.as_fd());
        let mut copy = FileCopy::new(&self.means, meta, old.as_fd(), new.as_fd());
        let mut made = None;
        let moved = flags.clone().and_then(|flags| {
            if first {
                made = Some(Meta::read(At::Open(new.as_fd()))?.inode);
                self.links.stage(meta.inode, dir.new.as_fd(), name)?;
            }
            copy.run(buffer, dir, name, first)?;
            if !first {
                self.means.attributes.bind(new.as_fd(), flags)?;
            }
            self.remove(dir, name)
        });
        self.means.progress.freed(copy.twice);
        if moved.is_err() {
            if copy.freed {
                // The new file holds what the old one has lost, so it is the one to undo from.
                let _ = copy.attributes();
            } else {
                // It may have its flags already, and the kernel unlinks no immutable file.
                let _ = self.means.attributes.free(new.as_fd());
                let _ = unlinkat(&dir.new, name, AtFlags::empty());
            }
            if let Ok(flags) = flags
                && !(first && copy.freed)
            {
                let _ = self.means.attributes.bind(if copy.freed { new.as_fd() } else { old.as_fd() }, flags);
            }
        }
        if let Some(made) = made
            && (moved.is_ok() || copy.freed)
        {
            let flags = flags.unwrap_or(IFlags::empty());
            self.links.moved(meta.inode, NewInode { inode: made, flags });
        }
        moved
    }

    /// Moves back what a failed move had taken of a file: the end that the file in the tree moved to has
    /// lost.
    fn merge(
        &self,
        buffer: &mut Buffer,
        dir: &Pair,
        name: &CStr,
        old: &OwnedFd,
        meta: &Meta,
    ) -> Result<(), Fault> {
        let flags = self.means.attributes.free(old.as_fd())?;
        merge_contents(
            self.means.attributes,
            self.means.holes,
            buffer,
            (dir.old.as_fd(), name),
            (dir.new.as_fd(), name),
            meta,
        )?;
        let new = openat(&dir.new, name, OFlags::RDONLY | NO_FOLLOW, Mode::empty()).call("openat")?;
        self.means.attributes.bind(new.as_fd(), flags)?;
        self.remove(dir, name)
    }

    /// Whether to enter a directory of the new tree that exists already. Of a payload, those that were not
    /// entered yet, known by their mode.
    fn may_merge(&self, dir: &OwnedFd, name: &CStr) -> Result<bool, Fault> {
        let is_unpacked = |meta: Meta| meta.kind == FileType::Directory && meta.mode == UNPACKED;
        match self.onto {
            Onto::Fresh => Ok(false),
            Onto::Undo => Ok(true),
            Onto::Payload => Meta::read(At::Named(dir.as_fd(), name)).map(is_unpacked),
        }
    }
}

/// Makes what is created in a directory belong to its creator alone: what would be inherited is set again
/// when it is left.
pub(crate) fn plain(dir: BorrowedFd<'_>) -> Result<(), Fault> {
    fchmod(dir, UNFINISHED).call("fchmod")?;
    match fremovexattr(dir, c"system.posix_acl_default") {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error).call("fremovexattr"),
    }
}
