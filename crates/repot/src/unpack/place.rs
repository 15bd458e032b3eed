//! Entries of the archive, made below the new root with all their attributes.
//!
//! Nothing is opened but through `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`, so no name and no link
//! that was unpacked before leads anywhere else.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod,
    fchown, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, symlinkat, utimensat,
};
use rustix::io::{Errno, pwrite};

use super::pieces::Begun;
use crate::error::{Call, Fault, retry_once};
use crate::metadata::{At, set_xattr};
use crate::mover::UNPACKED;
use crate::payload::archive::{Entry, Kind, Source, contents};
use crate::payload::index::Piece;
use crate::skipped::{ACCESS_ACL, Skipped};

const PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The kernel takes no longer path at once (PATH_MAX, with the zero at its end).
const LONGEST: usize = 4095;
/// What the contents of a file are a multiple of in the archive.
const BLOCK: u64 = 512;

/// Where entries are made.
pub(super) struct Place<'a> {
    root: BorrowedFd<'a>,
    skipped: &'a Skipped,
    /// The directory that was needed last, and its path.
    parent: (Vec<u8>, Option<OwnedFd>),
    /// Who owns what this process creates.
    creator: (u32, u32),
}

impl<'a> Place<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, skipped: &'a Skipped, creator: (u32, u32)) -> Self {
        Place { root, skipped, parent: (Vec::new(), None), creator }
    }

    /// Opens the directory that an entry is in, and gives its name there.
    fn enter(&mut self, path: &[u8]) -> Result<(BorrowedFd<'_>, CString), Fault> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let name = CString::new(name).map_err(|_| Fault::flaw("NUL byte in name:", path))?;
        if self.parent.0 != parent || (self.parent.1.is_none() && !parent.is_empty()) {
            self.parent.1 = None;
            self.parent.1 = walk(self.root, parent)?;
            self.parent.0.clear();
            self.parent.0.extend_from_slice(parent);
        }
        Ok((self.parent.1.as_ref().map_or(self.root, |dir| dir.as_fd()), name))
    }

    /// Makes a directory that nothing is in yet.
    pub(super) fn directory(&mut self, entry: &Entry) -> Result<(), Fault> {
        let (dir, name) = self.enter(&entry.path)?;
        mkdirat(dir, &name, UNPACKED).call("mkdirat")
    }

    /// Gives a directory its attributes, when all that belongs into it is there.
    pub(super) fn finish(&mut self, entry: &Entry) -> Result<(), Fault> {
        let directory = if entry.path.is_empty() {
            openat(self.root, c".", READ, Mode::empty()).call("openat")?
        } else {
            let (dir, name) = self.enter(&entry.path)?;
            openat2(dir, &name, READ, Mode::empty(), RESOLVE).call("openat2")?
        };
        let (uid, gid) = owner(entry);
        fchown(&directory, uid, gid).call("fchown")?;
        fchmod(&directory, Mode::from_raw_mode(entry.mode)).call("fchmod")?;
        xattrs(At::Open(directory.as_fd()), entry, self.skipped)?;
        futimens(&directory, &times(entry)).call("utimensat")
    }

    /// Makes anything else but a further name. `written` is called with what was written of a file.
    pub(super) fn entry(
        &mut self,
        entry: &Entry,
        source: &mut dyn Source,
        written: &dyn Fn(u64),
    ) -> Result<(), Fault> {
        let (creator, skipped) = (self.creator, self.skipped);
        let foreign = (entry.uid, entry.gid) != creator;
        let (dir, name) = self.enter(&entry.path)?;
        let mode = Mode::from_raw_mode(entry.mode);
        let kind = match entry.kind {
            Kind::File => {
                let file = make(dir, &name, entry.mode)?;
                write(&file, 0, entry.size, source, written)?;
                return whole(&file, entry, foreign, skipped);
            }
            Kind::Symlink => {
                symlinkat(entry.target.as_slice(), dir, &name).call("symlinkat")?;
                return attributes((dir, &name), entry, foreign, false, skipped);
            }
            Kind::Character => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::Directory | Kind::Link => {
                return Err(Fault::flaw("entry in the wrong frame:", &entry.path));
            }
        };
        let (major, minor) = entry.device;
        mknodat(dir, &name, kind, mode, makedev(major, minor)).call("mknodat")?;
        attributes((dir, &name), entry, foreign, true, skipped)
    }

    /// Writes a piece of a file of so many. Whether that was the last of them, and the file is whole.
    pub(super) fn piece(
        &mut self,
        entry: &Entry,
        (piece, pieces): (Piece, u32),
        begun: &Begun,
        source: &mut dyn Source,
        written: &dyn Fn(u64),
    ) -> Result<bool, Fault> {
        let Piece { header, offset, content, last } = piece;
        let end = entry.size.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        let fits = offset.checked_add(content).is_some_and(|to| if last { to == end } else { to < end });
        if entry.kind != Kind::File || !fits {
            return Err(Fault::flaw("pieces do not match the file:", &entry.path));
        }
        let skipped = self.skipped;
        let (dir, name) = self.enter(&entry.path)?;
        let file = begun.open(header, pieces, |first| {
            if first {
                // The others have to open it, too.
                return make(dir, &name, entry.mode | 0o200);
            }
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(dir, &name, flags, Mode::empty()).call("openat")
        })?;
        write(&file, offset, content.min(entry.size - offset), source, written)?;
        let done = begun.done(header);
        if done {
            whole(&file, entry, true, skipped)?;
        }
        Ok(done)
    }

    /// Makes a further name.
    pub(super) fn link(&mut self, entry: &Entry) -> Result<(), Fault> {
        let (from, old) = {
            let (dir, name) = self.enter(&entry.target)?;
            (rustix::io::fcntl_dupfd_cloexec(dir, 0).call("fcntl")?, name)
        };
        let (dir, name) = self.enter(&entry.path)?;
        linkat(&from, &old, dir, &name, AtFlags::empty()).call("linkat")
    }
}

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOATIME)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Opens a directory below the root, in parts where its path is longer than the kernel takes at once; nothing
/// for the root.
fn walk(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>, Fault> {
    let mut at = None;
    let mut rest = path;
    while !rest.is_empty() {
        let cut = if rest.len() <= LONGEST {
            rest.len()
        } else {
            let cut = rest[..LONGEST].iter().rposition(|byte| *byte == b'/');
            cut.ok_or(Errno::NAMETOOLONG).call("openat2")?
        };
        let from = at.as_ref().map_or(root, |at: &OwnedFd| at.as_fd());
        at = Some(openat2(from, &rest[..cut], PATH, Mode::empty(), RESOLVE).call("openat2")?);
        rest = rest.get(cut + 1..).unwrap_or_default();
    }
    Ok(at)
}

fn make(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<OwnedFd, Fault> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::from_raw_mode(mode)).call("openat")
}

/// Writes so many bytes from a place in the file on.
fn write(
    file: &OwnedFd,
    from: u64,
    length: u64,
    source: &mut dyn Source,
    written: &dyn Fn(u64),
) -> Result<(), Fault> {
    let mut at = from;
    contents(source, length, |piece| {
        let mut rest = piece;
        while !rest.is_empty() {
            match pwrite(file, rest, at) {
                Ok(0) => return Err(Errno::NOSPC).call("pwrite64"),
                Ok(count) => {
                    rest = &rest[count..];
                    at += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).call("pwrite64"),
            }
        }
        written(piece.len() as u64);
        Ok(())
    })
}

/// The attributes of a file whose contents are there: to write to it and to change its owner clear some of
/// the mode, and capabilities.
fn whole(file: &OwnedFd, entry: &Entry, foreign: bool, skipped: &Skipped) -> Result<(), Fault> {
    let mode = Mode::from_raw_mode(entry.mode);
    if foreign {
        let (uid, gid) = owner(entry);
        fchown(file, uid, gid).call("fchown")?;
    }
    if foreign || mode.intersects(Mode::SUID | Mode::SGID) {
        fchmod(file, mode).call("fchmod")?;
    }
    xattrs(At::Open(file.as_fd()), entry, skipped)?;
    futimens(file, &times(entry)).call("utimensat")
}

/// The attributes of what must not be opened.
fn attributes(
    (dir, name): (BorrowedFd<'_>, &CStr),
    entry: &Entry,
    foreign: bool,
    has_mode: bool,
    skipped: &Skipped,
) -> Result<(), Fault> {
    if foreign {
        let (uid, gid) = owner(entry);
        chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).call("fchownat")?;
    }
    if has_mode && (foreign || entry.mode & 0o6000 != 0) {
        chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).call("fchmodat")?;
    }
    xattrs(At::Named(dir, name), entry, skipped)?;
    utimensat(dir, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).call("utimensat")
}

/// Sets what the kernel takes.
fn xattrs(at: At<'_>, entry: &Entry, skipped: &Skipped) -> Result<(), Fault> {
    for (name, value) in &entry.xattrs {
        let attribute = CString::new(name.as_slice()).unwrap_or_default();
        let Err(errno) = retry_once(|| set_xattr(at, &attribute, value)) else { continue };
        skipped.attribute(name, &entry.path, errno);
        if name == ACCESS_ACL {
            let mode = Mode::from_raw_mode(entry.mode) - Mode::RWXG;
            match at {
                At::Open(file) => fchmod(file, mode).call("fchmod")?,
                At::Named(..) if entry.kind == Kind::Symlink => {}
                At::Named(dir, name) => chmodat(dir, name, mode, AtFlags::empty()).call("fchmodat")?,
            }
        }
    }
    Ok(())
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

#[allow(clippy::useless_conversion)]
fn times(entry: &Entry) -> Timestamps {
    let (seconds, nanoseconds) = entry.modified;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
