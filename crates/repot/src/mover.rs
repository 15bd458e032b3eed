//! Moves a tree from one file system to another: copy one entry, free it, next.
//!
//! In: the two roots, by descriptor. Out: everything in the new one, with every attribute, and the old one empty but for the
//! mount points that are still in use. At no time is more than one chunk of a file in memory twice for each thread, and no
//! byte is ever in neither tree. Whatever has been freed in the old tree is whole in the new one, attributes included: that
//! is what lets the same code, with the roots exchanged, move everything back.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, fchmod, fremovexattr, ftruncate, mkdirat, mknodat, openat,
    readlinkat_raw, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::data::{Buffer, Holes};
use crate::error::{Call, Fault};
use crate::file::{FileCopy, merge_contents};
use crate::folios::Folios;
use crate::links::{Claim, Links, Moved};
use crate::metadata::{At, Attributes, Meta};
use crate::ranges::Board;
use crate::sys::{self, Event};
use crate::walk::Visitor;

/// What of a file is in memory twice at most, in bytes.
pub const CHUNK: u64 = 1 << 20;

pub(crate) const FOLLOW_NOT: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOATIME).union(FOLLOW_NOT);

/// The mode of a directory in the new tree that has not been left: it is known by that when a thread was lost in it.
const UNFINISHED: Mode = Mode::RWXU.union(Mode::SVTX);

/// The mode of a directory that was unpacked from a payload and has not got its attributes.
pub(crate) const UNPACKED: Mode = Mode::RWXU;

/// A directory in both trees.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) old: OwnedFd,
    pub(crate) new: OwnedFd,
}

/// What is remembered of a directory until its contents have been moved.
#[derive(Debug)]
pub(crate) struct DirMeta {
    pub(crate) meta: Meta,
    pub(crate) flags: IFlags,
    /// Whether the directory in the new tree keeps the attributes that it will get from elsewhere.
    pub(crate) merged: bool,
}

/// What has been done so far; readable while the move goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Names moved, directories included.
    pub entries: AtomicU64,
    /// Bytes of file contents moved.
    pub bytes: AtomicU64,
    /// Mount points left behind in the old tree, to be removed when the mounts have moved.
    pub kept: AtomicU64,
    twice: AtomicU64,
    /// The most bytes that were in both trees at one time.
    pub peak: AtomicU64,
}

impl Progress {
    pub(crate) fn copied(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.doubled(bytes);
    }
    pub(crate) fn doubled(&self, bytes: u64) {
        let twice = self.twice.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(twice, Ordering::Relaxed);
    }
    pub(crate) fn freed(&self, bytes: u64) {
        self.twice.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The move from one tree to another.
#[derive(Debug)]
pub(crate) struct Mover<'a> {
    pub(crate) attributes: Attributes,
    pub(crate) holes: Holes,
    /// Device and inode of the running program, which must not be truncated. The kernel refuses that with ETXTBSY, except
    /// in 6.11.0 to 6.11.10 and 6.12.0 to 6.12.1.
    pub(crate) program: Option<((u32, u32), u64)>,
    pub(crate) links: &'a Links,
    /// Whether the new tree may hold parts of what is moved: a move that failed is being undone.
    pub(crate) back: bool,
    /// Whether the directories of a payload are in the new tree already: they are merged, and keep their attributes.
    pub(crate) over: bool,
    /// Whether contents are overwritten before they are freed.
    pub(crate) wipe: bool,
    pub(crate) folios: &'a Folios,
    pub(crate) board: &'a Board,
    pub(crate) progress: &'a Progress,
}

impl Visitor for Mover<'_> {
    type Dir = Pair;
    type Meta = DirMeta;
    type Scratch = Buffer;
    const REMOVES: bool = true;
    const DESCRIPTORS: usize = 2;

    fn list(dir: &Pair) -> BorrowedFd<'_> {
        dir.old.as_fd()
    }

    fn parent(&self, dir: &Pair) -> Result<Pair, Fault> {
        let old = openat(&dir.old, c"..", DIRECTORY, Mode::empty()).call("openat")?;
        let new = openat(&dir.new, c"..", DIRECTORY, Mode::empty()).call("openat")?;
        Ok(Pair { old, new })
    }

    fn enter(&self, dir: &Pair, name: &CStr) -> Result<Option<(Pair, DirMeta)>, Fault> {
        self.check_memory()?;
        let there = match mkdirat(&dir.new, name, UNFINISHED) {
            // Without the leave to merge, it can only be there because another thread is at work in it, or because it is
            // the mount point that was left behind in the old tree.
            Err(Errno::EXIST) if !self.back && !self.of_payload(&dir.new, name)? => return Ok(None),
            Err(Errno::EXIST) => true,
            made => made.call("mkdirat").map(|()| false)?,
        };
        let open = || {
            let old = openat(&dir.old, name, DIRECTORY, Mode::empty()).call("openat")?;
            let mut meta = Meta::read(At::Open(old.as_fd()))?;
            let new = openat(&dir.new, name, DIRECTORY, Mode::empty()).call("openat")?;
            if there && !self.over && meta.mode == UNFINISHED {
                meta = Meta::read(At::Open(new.as_fd()))?;
            } else if there {
                plain(new.as_fd())?;
            }
            let flags = self.attributes.free(old.as_fd())?;
            Ok((Pair { old, new }, DirMeta { meta, flags, merged: there && self.over }))
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
            let old = openat(&dir.old, name, OFlags::RDONLY | OFlags::NOATIME | FOLLOW_NOT, Mode::empty())
                .call("openat")?;
            let meta = Meta::read(At::Open(old.as_fd()))?;
            self.name(dir, name, &meta, |first| self.file(buffer, dir, name, &old, &meta, first))
        } else {
            let meta = Meta::read(At::Named(dir.old.as_fd(), name))?;
            self.name(dir, name, &meta, |first| self.special(dir, name, &meta, first))
        }
    }

    fn bell(&self) -> &Event {
        self.board.bell()
    }

    fn assist(&self, buffer: &mut Buffer) -> bool {
        self.board.assist(buffer, self.folios, self.progress)
    }

    fn abandon(&self) {
        self.links.abandon();
        self.board.abandon();
    }

    fn leave(
        &self,
        _: &mut Buffer,
        parent: Option<(&Pair, &CStr)>,
        dir: &Pair,
        remembered: &DirMeta,
        whole: bool,
    ) -> Result<(), Fault> {
        if parent.is_none() && whole {
            self.links.clear()?;
        }
        let (old, new) = (At::Open(dir.old.as_fd()), At::Open(dir.new.as_fd()));
        let finish = || {
            let copied = self.attributes.copy(&remembered.meta, old, new, false);
            let bound = self.attributes.bind(dir.new.as_fd(), remembered.flags);
            copied.and(bound)
        };
        // Undoing the move reads the attributes off the new directory: all of them are wanted there in any case.
        if !remembered.merged {
            finish().inspect_err(|_| {
                let _ = finish();
            })?;
        }
        let (Some((above, name)), true) = (parent, whole) else { return Ok(()) };
        match unlinkat(&above.old, name, AtFlags::REMOVEDIR) {
            // A mount point, or above one.
            Err(Errno::BUSY) => {
                self.progress.kept.fetch_add(1, Ordering::Relaxed);
            }
            Err(Errno::NOTEMPTY) if self.progress.kept.load(Ordering::Relaxed) > 0 => {}
            removed => removed.call("unlinkat")?,
        }
        self.progress.entries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Mover<'_> {
    /// Fails where what was set aside is in use: that is for undoing the move, and there is no undoing over a payload.
    fn check_memory(&self) -> Result<(), Fault> {
        if !self.back && !self.over && sys::is_memory_short() {
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
        self.progress.entries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Unlinks the old name. A mount point cannot be unlinked yet: what it holds is freed instead.
    fn remove(&self, dir: &Pair, name: &CStr) -> Result<(), Fault> {
        match unlinkat(&dir.old, name, AtFlags::empty()) {
            Err(Errno::BUSY) => {
                self.progress.kept.fetch_add(1, Ordering::Relaxed);
                if Meta::read(At::Named(dir.old.as_fd(), name))?.allocated > 0 {
                    let file =
                        openat(&dir.old, name, OFlags::WRONLY | FOLLOW_NOT, Mode::empty()).call("openat")?;
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
            Err(Errno::EXIST) if self.back || self.progress.kept.load(Ordering::Relaxed) > 0 => {
                return self.remove(dir, name);
            }
            made => made.call(if meta.kind == FileType::Symlink { "symlinkat" } else { "mknodat" })?,
        }
        let finish = || {
            self.attributes.copy(meta, old, new, true)?;
            if !first {
                return self.remove(dir, name);
            }
            let made = Meta::read(new)?.inode;
            self.links.stage(meta.inode, dir.new.as_fd(), name)?;
            self.remove(dir, name)?;
            self.links.moved(meta.inode, Moved { inode: made, flags: IFlags::empty() });
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
        let create = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | FOLLOW_NOT;
        let new = match openat(&dir.new, name, create, meta.mode) {
            Err(Errno::EXIST) if self.back => return self.merge(buffer, dir, name, old, meta),
            Err(Errno::EXIST) if self.progress.kept.load(Ordering::Relaxed) > 0 => return Ok(()),
            created => created.call("openat")?,
        };
        let flags = self.attributes.free(old.as_fd());
        let mut copy = FileCopy::new(self, meta, old.as_fd(), new.as_fd());
        let mut made = None;
        let moved = flags.clone().and_then(|flags| {
            if first {
                made = Some(Meta::read(At::Open(new.as_fd()))?.inode);
                self.links.stage(meta.inode, dir.new.as_fd(), name)?;
            }
            copy.run(buffer, dir, name, first)?;
            if !first {
                self.attributes.bind(new.as_fd(), flags)?;
            }
            self.remove(dir, name)
        });
        self.progress.freed(copy.twice);
        if moved.is_err() {
            if copy.freed {
                // The new file holds what the old one has lost, so it is the one to undo from.
                let _ = copy.attributes();
            } else {
                // It may have its flags already, and the kernel unlinks no immutable file.
                let _ = self.attributes.free(new.as_fd());
                let _ = unlinkat(&dir.new, name, AtFlags::empty());
            }
            if let Ok(flags) = flags
                && !(first && copy.freed)
            {
                let _ = self.attributes.bind(if copy.freed { new.as_fd() } else { old.as_fd() }, flags);
            }
        }
        if let Some(made) = made
            && (moved.is_ok() || copy.freed)
        {
            let flags = flags.unwrap_or(IFlags::empty());
            self.links.moved(meta.inode, Moved { inode: made, flags });
        }
        moved
    }

    /// Moves back what a failed move had taken of a file: the end that the file in the tree moved to has lost.
    fn merge(
        &self,
        buffer: &mut Buffer,
        dir: &Pair,
        name: &CStr,
        old: &OwnedFd,
        meta: &Meta,
    ) -> Result<(), Fault> {
        let flags = self.attributes.free(old.as_fd())?;
        merge_contents(
            self.attributes,
            self.holes,
            buffer,
            (dir.old.as_fd(), name),
            (dir.new.as_fd(), name),
            meta,
        )?;
        let new = openat(&dir.new, name, OFlags::RDONLY | FOLLOW_NOT, Mode::empty()).call("openat")?;
        self.attributes.bind(new.as_fd(), flags)?;
        self.remove(dir, name)
    }

    /// Whether a directory that is there is one of the payload that was not entered yet, known by its mode.
    fn of_payload(&self, dir: &OwnedFd, name: &CStr) -> Result<bool, Fault> {
        let of_payload = |meta: Meta| meta.kind == FileType::Directory && meta.mode == UNPACKED;
        Ok(self.over && of_payload(Meta::read(At::Named(dir.as_fd(), name))?))
    }

    pub(crate) fn is_program(&self, meta: &Meta) -> bool {
        self.program == Some((meta.device, meta.inode))
    }
}

/// Makes what is created in a directory belong to its creator alone: what would be inherited is set again when it is left.
pub(crate) fn plain(dir: BorrowedFd<'_>) -> Result<(), Fault> {
    fchmod(dir, UNFINISHED).call("fchmod")?;
    match fremovexattr(dir, c"system.posix_acl_default") {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error).call("fremovexattr"),
    }
}
