//! Creates the entries of the archive below the new root, with all their attributes.
//!
//! Every path is opened with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`, so neither a name nor an
//! unpacked symbolic link leads out of the root.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::ops::Range;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chmodat, chownat, fchmod,
    fchown, ftruncate, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, symlinkat, utimensat,
};
use rustix::io::{Errno, pwrite};

use super::pieces::OpenFiles;
use crate::error::{Call, Fault, retry_once};
use crate::metadata::{At, set_xattr};
use crate::mover::UNPACKED;
use crate::payload::archive::{Entry, Kind, Source, contents};
use crate::payload::index::{Pages, Piece};
use crate::skipped::{ACCESS_ACL, Skipped};

const PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The longest path that the kernel takes, in bytes (PATH_MAX less the NUL).
const MAX_PATH: usize = 4095;
/// The contents of a file are padded to a multiple of this in the archive, in bytes.
const BLOCK: u64 = 512;

/// Creates entries below a root.
pub(super) struct Place<'a> {
    root: BorrowedFd<'a>,
    skipped: &'a Skipped,
    /// Path and descriptor of the directory that was used last; `None` for the root.
    parent: (Vec<u8>, Option<OwnedFd>),
    /// The owner and group of entries that this process creates.
    creator: (u32, u32),
}

impl<'a> Place<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, skipped: &'a Skipped, creator: (u32, u32)) -> Self {
        Place { root, skipped, parent: (Vec::new(), None), creator }
    }

    /// Opens the directory of an entry, and returns it with the name of the entry.
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

    /// Creates a directory. `finish` sets its attributes.
    pub(super) fn directory(&mut self, entry: &Entry) -> Result<(), Fault> {
        let (dir, name) = self.enter(&entry.path)?;
        mkdirat(dir, &name, UNPACKED).call("mkdirat")
    }

    /// Sets the attributes of a directory, after all its entries were created.
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
        set_xattrs(At::Open(directory.as_fd()), entry, self.skipped)?;
        futimens(&directory, &times(entry)).call("utimensat")
    }

    /// Creates any entry except directories and hard links. `written` is called with the number of bytes
    /// after each write to a file.
    pub(super) fn entry(
        &mut self,
        entry: &Entry,
        source: &mut dyn Source,
        written: &dyn Fn(u64),
    ) -> Result<(), Fault> {
        let (creator, skipped) = (self.creator, self.skipped);
        let other_owner = (entry.uid, entry.gid) != creator;
        let (dir, name) = self.enter(&entry.path)?;
        let mode = Mode::from_raw_mode(entry.mode);
        let kind = match entry.kind {
            Kind::File => {
                let file = create_file(dir, &name, entry.mode)?;
                write(&file, entry.size, 0..entry.size, source, written)?;
                return finish_file(&file, entry, other_owner, skipped);
            }
            Kind::Symlink => {
                symlinkat(entry.target.as_slice(), dir, &name).call("symlinkat")?;
                return set_attributes((dir, &name), entry, other_owner, false, skipped);
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
        set_attributes((dir, &name), entry, other_owner, true, skipped)
    }

    /// Writes one piece of a file that has `pieces` pieces. Returns whether it was the last one missing, so
    /// that the file is complete.
    pub(super) fn piece(
        &mut self,
        entry: &Entry,
        (piece, pieces): (Piece, u32),
        open_files: &OpenFiles,
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
        let file = open_files.open(header, pieces, |first| {
            if first {
                // The other workers must be able to open it for writing.
                return create_file(dir, &name, entry.mode | 0o200);
            }
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(dir, &name, flags, Mode::empty()).call("openat")
        })?;
        write(&file, entry.size, offset..entry.size.min(offset + content), source, written)?;
        let done = open_files.done(header);
        if done {
            finish_file(&file, entry, true, skipped)?;
        }
        Ok(done)
    }

    /// Creates a hard link.
    pub(super) fn link(&mut self, entry: &Entry) -> Result<(), Fault> {
        let (from, old) = {
            let (dir, name) = self.enter(&entry.target)?;
            (rustix::io::fcntl_dupfd_cloexec(dir, 0).call("fcntl")?, name)
        };
        let (dir, name) = self.enter(&entry.path)?;
        linkat(&from, &old, dir, &name, AtFlags::empty()).call("linkat")
    }
}

/// The bytes that are written or left out together: a page, as the index counts them.
const HOLE: usize = 4096;
const _: () = assert!(HOLE as u64 == Pages::SIZES[0]);
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOATIME)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Opens a directory below the root, in several steps if its path is too long for one call. `None` for the
/// root.
fn walk(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>, Fault> {
    let mut at = None;
    let mut remaining = path;
    while !remaining.is_empty() {
        let cut = if remaining.len() <= MAX_PATH {
            remaining.len()
        } else {
            let cut = remaining[..MAX_PATH].iter().rposition(|byte| *byte == b'/');
            cut.ok_or(Errno::NAMETOOLONG).call("openat2")?
        };
        let from = at.as_ref().map_or(root, |at: &OwnedFd| at.as_fd());
        at = Some(openat2(from, &remaining[..cut], PATH, Mode::empty(), RESOLVE).call("openat2")?);
        remaining = remaining.get(cut + 1..).unwrap_or_default();
    }
    Ok(at)
}

fn create_file(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<OwnedFd, Fault> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::from_raw_mode(mode)).call("openat")
}

/// Writes a range of the file from the source. Blocks of zeros become holes: the archive does not tell them
/// apart, and a hole takes no memory.
fn write(
    file: &OwnedFd,
    size: u64,
    range: Range<u64>,
    source: &mut dyn Source,
    written: &dyn Fn(u64),
) -> Result<(), Fault> {
    let (mut at, mut end) = (range.start, range.start);
    contents(source, range.end - range.start, |piece| {
        let mut remaining = piece;
        while !remaining.is_empty() {
            let (data, is_hole) = run(remaining, at);
            if !is_hole {
                write_all(file, data, at)?;
                end = at + data.len() as u64;
            }
            at += data.len() as u64;
            remaining = &remaining[data.len()..];
        }
        written(piece.len() as u64);
        Ok(())
    })?;
    // Nothing that lies behind writes it.
    if end < size && range.end == size { ftruncate(file, size).call("ftruncate") } else { Ok(()) }
}

/// The first blocks that are all to be written, or all to be left out.
fn run(bytes: &[u8], at: u64) -> (&[u8], bool) {
    let first = HOLE - usize::try_from(at % HOLE as u64).unwrap_or(0);
    let (first, rest) = bytes.split_at(first.min(bytes.len()));
    let is_hole = |block: &[u8]| block.iter().all(|byte| *byte == 0);
    let hole = is_hole(first);
    let more: usize = rest.chunks(HOLE).take_while(|block| is_hole(block) == hole).map(<[u8]>::len).sum();
    (&bytes[..first.len() + more], hole)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Fault> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, at) {
            Ok(0) => return Err(Errno::NOSPC).call("pwrite64"),
            Ok(count) => {
                bytes = &bytes[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).call("pwrite64"),
        }
    }
    Ok(())
}

/// Sets the attributes of a file after its contents, because writing and changing the owner clear mode bits
/// and capabilities.
fn finish_file(file: &OwnedFd, entry: &Entry, other_owner: bool, skipped: &Skipped) -> Result<(), Fault> {
    let mode = Mode::from_raw_mode(entry.mode);
    if other_owner {
        let (uid, gid) = owner(entry);
        fchown(file, uid, gid).call("fchown")?;
    }
    if other_owner || mode.intersects(Mode::SUID | Mode::SGID) {
        fchmod(file, mode).call("fchmod")?;
    }
    set_xattrs(At::Open(file.as_fd()), entry, skipped)?;
    futimens(file, &times(entry)).call("utimensat")
}

/// Sets the attributes of an entry that must not be opened.
fn set_attributes(
    (dir, name): (BorrowedFd<'_>, &CStr),
    entry: &Entry,
    other_owner: bool,
    has_mode: bool,
    skipped: &Skipped,
) -> Result<(), Fault> {
    if other_owner {
        let (uid, gid) = owner(entry);
        chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).call("fchownat")?;
    }
    if has_mode && (other_owner || entry.mode & 0o6000 != 0) {
        chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).call("fchmodat")?;
    }
    set_xattrs(At::Named(dir, name), entry, skipped)?;
    utimensat(dir, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).call("utimensat")
}

/// Sets the extended attributes. One that the kernel refuses twice is skipped with a warning.
fn set_xattrs(at: At<'_>, entry: &Entry, skipped: &Skipped) -> Result<(), Fault> {
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
