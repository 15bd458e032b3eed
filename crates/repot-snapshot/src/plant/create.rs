//! Creates a tree.
//!
//! First all entries, in order. Then the attributes of directories from the bottom up, because creating an
//! entry changes the times of its directory. Inode flags come last, because they forbid every other change.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, IFlags, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, ioctl_setflags, linkat, makedev, mkdirat, mknodat, openat, setxattr, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::{Data, Fs, Meta, Plant, What};

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Creates `tree` below `top`, which is on an `fs`, or on a disk that has extended attributes as tmpfs has.
///
/// # Panics
/// If anything cannot be created as described: a test of half a tree proves nothing.
pub fn plant(top: impl AsFd, fs: Fs, tree: &[Plant]) {
    let dirs = || tree.iter().rev().filter(|plant| plant.what == What::Dir);
    for plant in tree {
        made(plant, create(&top, plant));
        if !matches!(plant.what, What::Dir | What::HardLink(_)) {
            made(plant, attributes(&top, fs, plant));
        }
    }
    for plant in dirs() {
        made(plant, attributes(&top, fs, plant));
    }
    let flagged = |plant: &&Plant| fs == Fs::Tmpfs && plant.meta.flags != 0;
    for plant in tree.iter().filter(flagged) {
        made(plant, flags(&top, plant));
    }
}

fn made(plant: &Plant, result: io::Result<()>) {
    if let Err(error) = result {
        panic!("cannot create {plant:?}: {error}");
    }
}

/// Opens the directory of `path`, one name at a time so that a path may have any length, and returns the last
/// name.
pub(crate) fn parent(top: impl AsFd, path: &[u8]) -> io::Result<(OwnedFd, CString)> {
    let mut dir = openat(top, c".", PATH, Mode::empty())?;
    let mut names: Vec<_> = path.split(|&byte| byte == b'/').collect();
    let last = names.pop().unwrap_or(b"");
    for name in names {
        dir = openat(&dir, name, PATH | OFlags::DIRECTORY, Mode::empty())?;
    }
    Ok((dir, CString::new(if last.is_empty() { b".".as_slice() } else { last })?))
}

fn create(top: impl AsFd, plant: &Plant) -> io::Result<()> {
    let (dir, name) = parent(&top, &plant.path)?;
    let node = |kind, device| mknodat(&dir, &name, kind, Mode::from_raw_mode(0o600), device);
    match &plant.what {
        What::Dir => match mkdirat(&dir, &name, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => {}
            result => result?,
        },
        What::File { len, data } => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = File::from(openat(&dir, &name, flags, Mode::from_raw_mode(0o600))?);
            file.set_len(*len)?;
            for piece in data {
                file.write_all_at(&bytes(*piece), piece.at)?;
            }
        }
        What::Symlink(target) => symlinkat(CString::new(target.as_slice())?, &dir, &name)?,
        What::Char(major, minor) => node(FileType::CharacterDevice, makedev(*major, *minor))?,
        What::Block(major, minor) => node(FileType::BlockDevice, makedev(*major, *minor))?,
        What::Fifo => node(FileType::Fifo, 0)?,
        What::Socket => node(FileType::Socket, 0)?,
        What::HardLink(first) => {
            let (first_dir, first_name) = parent(&top, first)?;
            linkat(&first_dir, &first_name, &dir, &name, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// The bytes of a part: noise that depends on the position alone, so that no two chunks of a file are equal.
pub(crate) fn bytes(piece: Data) -> Vec<u8> {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    // Not a power of two, so that the same place in two chunks differs in large files too.
    const PERIOD: u64 = 10_000_001;
    let word = |word: u64| {
        let mixed = (word + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes()
    };
    let noise = NOISE.get_or_init(|| (0..=PERIOD / 8).flat_map(word).collect());
    let mut bytes = Vec::new();
    let (mut at, end) = (piece.at, piece.at + piece.len);
    while at < end {
        let within = at % PERIOD;
        let len = (end - at).min(PERIOD - within);
        let range = within..within + len;
        let index = |at: u64| usize::try_from(at).expect("fits in memory");
        bytes.extend_from_slice(&noise[index(range.start)..index(range.end)]);
        at += len;
    }
    bytes
}

/// Owner before mode, because a change of owner clears set-user-ID bits. The times come last: nothing after
/// changes them.
fn attributes(top: impl AsFd, fs: Fs, plant: &Plant) -> io::Result<()> {
    let Meta { mode, uid, gid, atime, mtime, xattrs, flags: _ } = &plant.meta;
    let (dir, name) = parent(top, &plant.path)?;
    let at = openat(&dir, &name, PATH, Mode::empty())?;
    // A path through /proc leads to the inode itself, whatever kind it is.
    let path = CString::new(format!("/proc/thread-self/fd/{}", at.as_raw_fd()))?;
    let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
    chownat(&at, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    if !matches!(plant.what, What::Symlink(_)) {
        chmodat(CWD, &path, Mode::from_raw_mode(*mode), AtFlags::empty())?;
    }
    if fs == Fs::Tmpfs {
        for (name, value) in xattrs {
            set_xattr(&path, name, value)?;
        }
    }
    let time = |(tv_sec, nsec): (i64, u32)| Timespec { tv_sec, tv_nsec: nsec.into() };
    let times = Timestamps { last_access: time(*atime), last_modification: time(*mtime) };
    utimensat(CWD, &path, &times, AtFlags::empty())?;
    Ok(())
}

fn set_xattr(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    setxattr(path, name, value, XattrFlags::empty())
        .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("setxattr {name:?}: {error}")))
}

fn flags(top: impl AsFd, plant: &Plant) -> io::Result<()> {
    let (dir, name) = parent(top, &plant.path)?;
    let file = openat(&dir, &name, OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC, Mode::empty())?;
    Ok(ioctl_setflags(&file, IFlags::from_bits_retain(plant.meta.flags))?)
}
