//! The simple mover that repot is compared with. It is written to be obviously right.
//!
//! It takes one entry after the other, recursively, creates it in the new tree with whole files in memory,
//! and removes the old one. It does not care about memory, speed or failures.
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, Dir, FileType, IFlags, Mode, OFlags, RawMode, StatxFlags, XattrFlags, ioctl_getflags,
    ioctl_setflags, linkat, mkdirat, mknodat, openat, readlinkat, statx, symlinkat, unlinkat,
};
use rustix::fs::{CWD, Gid, Statx, Timespec, Timestamps, Uid, utimensat};
use rustix::io::Errno;

use repot_snapshot::data_ranges;

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NOATIME);

/// What the mover remembers.
#[derive(Default)]
struct Memory {
    /// For each inode with hard links, a descriptor of the new one.
    links: HashMap<u64, OwnedFd>,
    /// Inode flags that are set at the end, because they forbid new links and entries.
    flags: Vec<(OwnedFd, u32)>,
}

/// Moves everything from `old` to `new`, and the attributes of the top. Both must be tops of mounts.
///
/// # Errors
/// At the first failure, in the middle of the move.
pub fn relocate(old: impl AsFd, new: impl AsFd) -> io::Result<()> {
    let old = openat(old, c".", READ | OFlags::DIRECTORY, Mode::empty())?;
    let new = openat(new, c".", READ | OFlags::DIRECTORY, Mode::empty())?;
    let top = openat(&old, c".", PATH, Mode::empty())?;
    let before = Before::of(&top)?;
    before.unprotect(&top)?;
    let mut memory = Memory::default();
    inside(&old, &new, &mut memory)?;
    before.apply(openat(&new, c".", PATH, Mode::empty())?, &mut memory)?;
    for (file, flags) in memory.flags {
        ioctl_setflags(&file, IFlags::from_bits_retain(flags))?;
    }
    Ok(())
}

fn inside(old: &OwnedFd, new: &OwnedFd, memory: &mut Memory) -> io::Result<()> {
    let names: Vec<CString> =
        Dir::read_from(old)?.map(|entry| Ok(entry?.file_name().to_owned())).collect::<io::Result<_>>()?;
    for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
        entry(old, new, name, memory)?;
    }
    Ok(())
}

fn entry(old: &OwnedFd, new: &OwnedFd, name: &CStr, memory: &mut Memory) -> io::Result<()> {
    let at = openat(old, name, PATH, Mode::empty())?;
    let before = Before::of(&at)?;
    let kind = before.kind();
    if let Some(first) = memory.links.get(&before.stat.stx_ino).filter(|_| kind != FileType::Directory) {
        linkat(first, c"", new, name, AtFlags::EMPTY_PATH)?;
        return Ok(unlinkat(old, name, AtFlags::empty())?);
    }
    let node = || {
        let device = rustix::fs::makedev(before.stat.stx_rdev_major, before.stat.stx_rdev_minor);
        mknodat(new, name, kind, Mode::from_raw_mode(0o600), device)
    };
    before.unprotect(&at)?;
    match kind {
        FileType::Directory => {
            mkdirat(new, name, Mode::from_raw_mode(0o700))?;
            let old_dir = openat(old, name, READ | OFlags::DIRECTORY, Mode::empty())?;
            let new_dir = openat(new, name, READ | OFlags::DIRECTORY, Mode::empty())?;
            inside(&old_dir, &new_dir, memory)?;
        }
        FileType::RegularFile => {
            let to = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let to = openat(new, name, to, Mode::from_raw_mode(0o600))?;
            content(&openat(old, name, READ, Mode::empty())?, &to, before.stat.stx_size)?;
        }
        FileType::Symlink => symlinkat(&readlinkat(&at, c"", vec![])?, new, name)?,
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket => node()?,
        FileType::Unknown => unreachable!("statx always knows"),
    }
    let moved = before.apply(openat(new, name, PATH, Mode::empty())?, memory)?;
    let how = if kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    unlinkat(old, name, how)?;
    if kind != FileType::Directory && before.stat.stx_nlink > 1 {
        memory.links.insert(before.stat.stx_ino, moved);
    }
    Ok(())
}

/// Copies data but not holes, which have no page in memory on both file systems.
fn content(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
    let (from, to) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
    to.set_len(size)?;
    for (start, end) in data_ranges(&from, size)? {
        let mut bytes = vec![0; usize::try_from(end - start).expect("fits in memory")];
        from.read_exact_at(&mut bytes, start)?;
        to.write_all_at(&bytes, start)?;
    }
    Ok(())
}

/// The attributes of an entry, read before anything else.
struct Before {
    stat: Statx,
    xattrs: Vec<(CString, Vec<u8>)>,
    flags: u32,
}

impl Before {
    fn of(at: &OwnedFd) -> io::Result<Before> {
        let stat = statx(at, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let path = through_proc(at);
        let mut xattrs = vec![];
        let mut names = vec![0; 1 << 16];
        match rustix::fs::listxattr(&path, &mut names[..]) {
            Ok(used) => names.truncate(used),
            Err(Errno::OPNOTSUPP) => names.clear(),
            Err(error) => return Err(error.into()),
        }
        for name in names.split_inclusive(|&byte| byte == 0) {
            let name = CStr::from_bytes_with_nul(name).expect("names end with NUL");
            let mut value = vec![0; 1 << 16];
            let used = rustix::fs::getxattr(&path, name, &mut value[..])?;
            xattrs.push((name.to_owned(), value[..used].to_vec()));
        }
        let mut before = Before { stat, xattrs, flags: 0 };
        if let Some(file) = before.open(&path)? {
            before.flags = ioctl_getflags(&file).map_or(0, |flags| flags.bits());
        }
        Ok(before)
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(RawMode::from(self.stat.stx_mode))
    }

    fn open(&self, path: &CStr) -> io::Result<Option<OwnedFd>> {
        let opens = matches!(self.kind(), FileType::RegularFile | FileType::Directory);
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
        Ok(if opens { Some(openat(CWD, path, flags, Mode::empty())?) } else { None })
    }

    /// Clears the inode flags of the old entry, which forbid removing it.
    fn unprotect(&self, at: &OwnedFd) -> io::Result<()> {
        match self.open(&through_proc(at))? {
            Some(file) if self.flags != 0 => Ok(ioctl_setflags(&file, IFlags::empty())?),
            _ => Ok(()),
        }
    }

    fn apply(&self, to: OwnedFd, memory: &mut Memory) -> io::Result<OwnedFd> {
        let path = through_proc(&to);
        let (uid, gid) = (Uid::from_raw(self.stat.stx_uid), Gid::from_raw(self.stat.stx_gid));
        rustix::fs::chownat(&to, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        if self.kind() != FileType::Symlink {
            let mode = Mode::from_raw_mode(RawMode::from(self.stat.stx_mode) & 0o7777);
            rustix::fs::chmodat(CWD, &path, mode, AtFlags::empty())?;
        }
        for (name, value) in &self.xattrs {
            rustix::fs::setxattr(&path, name, value, XattrFlags::empty())?;
        }
        let time =
            |at: rustix::fs::StatxTimestamp| Timespec { tv_sec: at.tv_sec, tv_nsec: at.tv_nsec.into() };
        let times = Timestamps {
            last_access: time(self.stat.stx_atime),
            last_modification: time(self.stat.stx_mtime),
        };
        utimensat(CWD, &path, &times, AtFlags::empty())?;
        if let Some(file) = self.open(&path)?.filter(|_| self.flags != 0) {
            memory.flags.push((file, self.flags));
        }
        Ok(to)
    }
}

/// A path to the inode of a descriptor, whatever its type.
fn through_proc(at: &OwnedFd) -> CString {
    CString::new(format!("/proc/thread-self/fd/{}", at.as_raw_fd())).expect("no NUL")
}
