//! The walk that takes a snapshot.

use crate::content::Content;
use crate::entry::{Entry, Kind};
use crate::sys;
use crate::text::escape;
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, ioctl_getflags, lgetxattr,
    llistxattr, openat, readlinkat, statx, utimensat,
};
use rustix::io::Errno;
use rustix::process::fchdir;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A tree by path. Paths are relative to the top, which itself is the entry with the empty path.
pub type Snapshot = BTreeMap<Vec<u8>, Entry>;

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Takes the snapshot of `top` and everything below.
///
/// # Errors
/// If anything cannot be read: a snapshot is complete or it fails.
pub fn snapshot(top: impl AsFd) -> io::Result<Snapshot> {
    let top = top.as_fd();
    sys::with_own_working_directory(|| {
        let mut walk = Walk { buffer: vec![0; 64 << 10], ..Walk::default() };
        walk.tree(top)?;
        Ok(walk.finish())
    })
}

/// A directory on the way down.
struct Level {
    path_len: usize,
    /// Its directories that have not been entered yet.
    todo: Vec<CString>,
}

/// An inode with several hard links.
#[derive(Default)]
struct Linked {
    paths: Vec<Vec<u8>>,
    content: Option<Arc<Content>>,
}

#[derive(Default)]
struct Walk {
    entries: Snapshot,
    /// By device and inode number.
    linked: BTreeMap<(u32, u32, u64), Linked>,
    path: Vec<u8>,
    /// For names and values of extended attributes, which have 64 KiB at most.
    buffer: Vec<u8>,
}

impl Walk {
    fn tree(&mut self, top: BorrowedFd<'_>) -> io::Result<()> {
        let mut here = open(top, c".", OFlags::DIRECTORY)?;
        fchdir(&here)?;
        let entry = self.entry(here.as_fd(), c".", &[])?;
        self.entries.insert(Vec::new(), entry);
        let mut levels = vec![Level { path_len: 0, todo: self.list(&here)? }];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path_len);
            if let Some(name) = level.todo.pop() {
                here = open(here.as_fd(), &name, OFlags::DIRECTORY)?;
                fchdir(&here)?;
                join(&mut self.path, &name);
                let todo = self.list(&here)?;
                levels.push(Level { path_len: self.path.len(), todo });
            } else {
                levels.pop();
                if !levels.is_empty() {
                    here = open(here.as_fd(), c"..", OFlags::DIRECTORY)?;
                    fchdir(&here)?;
                }
            }
        }
        Ok(())
    }

    /// Records all entries of the working directory `here` and returns the names of its directories.
    fn list(&mut self, here: &OwnedFd) -> io::Result<Vec<CString>> {
        let mut directories = Vec::new();
        for found in Dir::read_from(here)? {
            let found = found?;
            let name = found.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let mut path = self.path.clone();
            join(&mut path, name);
            let entry = self
                .entry(here.as_fd(), name, &path)
                .map_err(|error| io::Error::new(error.kind(), format!("/{}: {error}", escape(&path))))?;
            if entry.kind == Kind::Dir {
                directories.push(name.to_owned());
            }
            self.entries.insert(path, entry);
        }
        Ok(directories)
    }

    /// Everything about one entry of the working directory. The times come first: what follows may change
    /// them.
    fn entry(&mut self, here: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> io::Result<Entry> {
        let stat = statx(here, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
        let kind = Kind::of(stat.stx_mode.into()).ok_or(io::ErrorKind::Unsupported)?;
        let opened = match kind {
            Kind::File | Kind::Dir => Some(open(here, name, OFlags::empty())?),
            Kind::Symlink | Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket => None,
        };
        let content = match &opened {
            Some(file) if kind == Kind::File => Some(self.content(file, &stat, path)?),
            _ => self.other_link(&stat, kind, path),
        };
        let sized = matches!(kind, Kind::File | Kind::Symlink);
        let target = if kind == Kind::Symlink { target(here, name, &stat)? } else { Vec::new() };
        Ok(Entry {
            kind,
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: if sized { stat.stx_size } else { 0 },
            rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
            target,
            content,
            atime: (stat.stx_atime.tv_sec, stat.stx_atime.tv_nsec),
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            xattrs: self.xattrs(name)?,
            flags: opened.map_or(Ok(0), |file| flags(&file))?,
            nlink: if kind == Kind::Dir { 1 } else { stat.stx_nlink },
            linked: None,
            blocks: if kind == Kind::File { stat.stx_blocks } else { 0 },
        })
    }

    /// The content of a file, which is read once however many hard links it has.
    fn content(&mut self, file: &OwnedFd, stat: &Statx, path: &[u8]) -> io::Result<Arc<Content>> {
        if let Some(content) = self.other_link(stat, Kind::File, path) {
            return Ok(content);
        }
        let content = Arc::new(Content::of(file, stat.stx_size)?);
        if let Some(linked) = self.linked.get_mut(&inode(stat)) {
            linked.content = Some(Arc::clone(&content));
        }
        Ok(content)
    }

    /// Notes one more path of an inode with several, and returns the content if another path was read before.
    fn other_link(&mut self, stat: &Statx, kind: Kind, path: &[u8]) -> Option<Arc<Content>> {
        if kind == Kind::Dir || stat.stx_nlink < 2 {
            return None;
        }
        let linked = self.linked.entry(inode(stat)).or_default();
        linked.paths.push(path.to_vec());
        linked.content.clone()
    }

    /// The extended attributes of an entry of the working directory.
    fn xattrs(&mut self, name: &CStr) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let len = match llistxattr(name, &mut self.buffer[..]) {
            Ok(len) => len,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(error.into()),
        };
        let names = self.buffer[..len].to_vec();
        let mut found = BTreeMap::new();
        for key in names.split(|&byte| byte == 0).filter(|key| !key.is_empty()) {
            let len = lgetxattr(name, key, &mut self.buffer[..])?;
            found.insert(key.to_vec(), self.buffer[..len].to_vec());
        }
        Ok(found)
    }

    fn finish(mut self) -> Snapshot {
        for mut linked in self.linked.into_values() {
            linked.paths.sort();
            for path in &linked.paths {
                if let Some(entry) = self.entries.get_mut(path) {
                    entry.linked = linked.paths.first().cloned();
                }
            }
        }
        self.entries
    }
}

/// Opens a file or directory for reading, and keeps its access time if the owner allows that.
fn open(directory: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    match openat(directory, name, READ | OFlags::NOATIME | flags, Mode::empty()) {
        Err(Errno::PERM) => Ok(openat(directory, name, READ | flags, Mode::empty())?),
        other => Ok(other?),
    }
}

/// The target of a symlink. Reading it may change the access time, which is then restored.
fn target(directory: BorrowedFd<'_>, name: &CStr, before: &Statx) -> io::Result<Vec<u8>> {
    let target = readlinkat(directory, name, Vec::new())?.into_bytes();
    let after = statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::ATIME)?.stx_atime;
    let (atime, mtime) = (before.stx_atime, before.stx_mtime);
    if (atime.tv_sec, atime.tv_nsec) != (after.tv_sec, after.tv_nsec) {
        let time = |tv_sec: i64, nsec: u32| Timespec { tv_sec, tv_nsec: nsec.into() };
        let times = Timestamps {
            last_access: time(atime.tv_sec, atime.tv_nsec),
            last_modification: time(mtime.tv_sec, mtime.tv_nsec),
        };
        // If this fails, on a file of another owner for example, the snapshot is still correct.
        let _ = utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
    Ok(target)
}

fn flags(file: &OwnedFd) -> io::Result<u32> {
    match ioctl_getflags(file) {
        Ok(flags) => Ok(flags.bits()),
        // How file systems without inode flags answer.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn inode(stat: &Statx) -> (u32, u32, u64) {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

fn join(path: &mut Vec<u8>, name: &CStr) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
}
