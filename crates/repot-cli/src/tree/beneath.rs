//! A directory whose entries are opened by path without leaving it: no `..` and no symbolic links.
//!
//! `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)` does that in one call. If a sandbox blocks the call, the
//! path is walked one component at a time with `O_NOFOLLOW`, which is equivalent for a path without `..`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// An open directory.
#[derive(Debug)]
pub struct Beneath {
    root: OwnedFd,
}

impl Beneath {
    /// Opens the directory at `path`. Symbolic links in `path` itself are followed: the user chose it.
    pub fn open(path: &Path) -> Result<Beneath> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .with_context(|| format!("cannot open the directory {}", path.display()))?;
        Ok(Beneath { root })
    }

    /// The directory itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a directory inside for listing; `.` is the directory itself.
    pub fn directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens a file inside for reading, and does not update its access time if the system allows that.
    pub fn file(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        // If the file has been replaced with a fifo, opening it must not block.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        match self.open_at(path, flags | OFlags::NOATIME) {
            // Only the owner may use O_NOATIME.
            Err(Errno::PERM) => self.open_at(path, flags),
            done => done,
        }
    }

    fn open_at(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS) => self.walk(path, flags),
            done => done,
        }
    }

    fn walk(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut components = path.split(|&byte| byte == b'/').peekable();
        let mut directory: Option<OwnedFd> = None;
        while let Some(component) = components.next() {
            if component == b".." || component.is_empty() {
                return Err(Errno::XDEV);
            }
            let at = directory.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            if components.peek().is_none() {
                return rustix::fs::openat(at, component, flags, Mode::empty());
            }
            let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directory = Some(rustix::fs::openat(at, component, through, Mode::empty())?);
        }
        Err(Errno::NOENT)
    }
}
