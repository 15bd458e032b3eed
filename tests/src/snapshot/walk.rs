//! The walk that takes a snapshot.
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, StatxFlags, getxattr, ioctl_getflags, listxattr, openat,
    readlinkat, statx,
};
use rustix::io::Errno;

use super::content::Content;
use super::entry::{Entry, Kind};

/// A tree, by path relative to its top, which itself is the entry with the empty path.
pub type Snapshot = BTreeMap<Vec<u8>, Entry>;

/// Inodes with several names, and the lowest name seen so far.
type Links = BTreeMap<(u32, u32, u64), Vec<Vec<u8>>>;

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOATIME)
    .union(OFlags::NONBLOCK);

/// A directory on the way down: how long its path is and which of its directories are still to be entered.
struct Level {
    path_len: usize,
    todo: Vec<CString>,
}

/// Takes the snapshot of everything below and including `top`.
///
/// # Errors
/// Whatever the file system says: a snapshot is whole or none.
pub fn snapshot(top: impl AsFd) -> io::Result<Snapshot> {
    let mut entries = Snapshot::new();
    let mut links = Links::new();
    let mut path = Vec::new();
    let mut here = openat(&top, c".", READ | OFlags::DIRECTORY, Mode::empty())?;
    entries.insert(Vec::new(), entry(here.as_fd(), c".", &path, &mut links)?);
    let mut levels = vec![Level { path_len: 0, todo: list(&here, &path, &mut entries, &mut links)? }];
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path_len);
        if let Some(name) = level.todo.pop() {
            here = openat(&here, &name, READ | OFlags::DIRECTORY, Mode::empty())?;
            join(&mut path, &name);
            let todo = list(&here, &path, &mut entries, &mut links)?;
            levels.push(Level { path_len: path.len(), todo });
        } else {
            levels.pop();
            if !levels.is_empty() {
                here = openat(&here, c"..", READ | OFlags::DIRECTORY, Mode::empty())?;
            }
        }
    }
    for mut paths in links.into_values() {
        paths.sort();
        for path in &paths {
            entries.get_mut(path).expect("walked").linked = Some(paths[0].clone());
        }
    }
    Ok(entries)
}

/// Records all entries of one directory and returns the names of its directories.
fn list(dir: &OwnedFd, path: &[u8], entries: &mut Snapshot, links: &mut Links) -> io::Result<Vec<CString>> {
    let mut dirs = Vec::new();
    for found in Dir::read_from(dir)? {
        let name = found?.file_name().to_owned();
        if name.as_bytes() == b"." || name.as_bytes() == b".." {
            continue;
        }
        let mut path = path.to_vec();
        join(&mut path, &name);
        let entry = entry(dir.as_fd(), &name, &path, links)?;
        if entry.kind == Kind::Dir {
            dirs.push(name);
        }
        entries.insert(path, entry);
    }
    Ok(dirs)
}

fn join(path: &mut Vec<u8>, name: &CStr) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
}

fn entry(dir: BorrowedFd<'_>, name: &CStr, path: &[u8], links: &mut Links) -> io::Result<Entry> {
    let at = openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = statx(&at, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let kind = Kind::from(FileType::from_raw_mode(stat.stx_mode.into()));
    let sized = matches!(kind, Kind::File | Kind::Symlink);
    let opened = match kind {
        Kind::File | Kind::Dir => Some(openat(dir, name, READ, Mode::empty())?),
        Kind::Symlink | Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket => None,
    };
    if kind != Kind::Dir && stat.stx_nlink > 1 {
        let inode = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        links.entry(inode).or_default().push(path.to_vec());
    }
    Ok(Entry {
        kind,
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size: if sized { stat.stx_size } else { 0 },
        rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
        target: if kind == Kind::Symlink { readlinkat(&at, c"", vec![])?.into_bytes() } else { vec![] },
        content: match &opened {
            Some(file) if kind == Kind::File => Some(Content::of(file, stat.stx_size)?),
            _ => None,
        },
        atime: (stat.stx_atime.tv_sec, stat.stx_atime.tv_nsec),
        mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        xattrs: xattrs(&at)?,
        flags: opened.map_or(Ok(0), |file| flags(&file))?,
        nlink: if kind == Kind::Dir { 1 } else { stat.stx_nlink },
        linked: None,
        blocks: if kind == Kind::File { stat.stx_blocks } else { 0 },
    })
}

/// The attributes of any kind of entry: a path through `/proc` leads to the very inode the descriptor holds.
fn xattrs(at: &OwnedFd) -> io::Result<BTreeMap<CString, Vec<u8>>> {
    let path = format!("/proc/thread-self/fd/{}", at.as_raw_fd());
    let mut names = vec![0; 1 << 16];
    let used = match listxattr(path.as_str(), &mut names[..]) {
        Ok(used) => used,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names[..used].split_inclusive(|&byte| byte == 0) {
        let name = CStr::from_bytes_with_nul(name).expect("names end with NUL");
        let mut value = vec![0; 1 << 16];
        // Following the link in /proc is what leads to the inode; there is nothing further to follow.
        let used = getxattr(path.as_str(), name, &mut value[..])?;
        value.truncate(used);
        found.insert(name.to_owned(), value);
    }
    Ok(found)
}

fn flags(file: &OwnedFd) -> io::Result<u32> {
    match ioctl_getflags(file) {
        Ok(flags) => Ok(flags.bits()),
        Err(Errno::NOTTY | Errno::OPNOTSUPP) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
