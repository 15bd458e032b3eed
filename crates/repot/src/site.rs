//! The descriptors through which the system is inspected and changed.
//!
//! procfs is read through a detached mount. The tree is accessed through a clone of the root mount alone:
//! nothing mounted below can be seen, copied or deleted through it, and whatever a mount hides is visible.

use alloc::vec;
use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::{Errno, read};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen, open_tree,
};

use crate::error::{Call, Error, Fault, Step};

/// Descriptors that stay open while the system is inspected and changed.
#[derive(Debug)]
pub struct Site {
    /// A detached procfs.
    pub(crate) proc: OwnedFd,
    /// `/`, with everything mounted below it.
    pub(crate) root: OwnedFd,
    /// The same directory through a detached clone of its mount, without anything mounted below it.
    pub(crate) old: OwnedFd,
}

impl Site {
    /// Opens the descriptors. Attaches no mount.
    ///
    /// # Errors
    /// ENOSYS if the kernel lacks a call (`fsopen` and `open_tree` came with 5.2), EPERM if this process may
    /// not mount.
    pub fn open() -> Result<Site, Error> {
        Site::try_open().map_err(|fault| fault.at(Step::Facts))
    }

    fn try_open() -> Result<Site, Fault> {
        let proc = detached("proc")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
        let root = openat(CWD, "/", flags, Mode::empty()).on("openat", b"/")?;
        let clone = open_tree(
            &root,
            "",
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH,
        )
        .on("open_tree", b"/")?;
        let old = openat(&clone, c".", flags, Mode::empty()).on("openat", b"/")?;
        Ok(Site { proc, root, old })
    }

    /// Whether this process is in the initial PID namespace, so that the kernel's log and sysctls are ours to
    /// use.
    pub fn machine(&self) -> bool {
        match readlinkat(&self.proc, "self/ns/pid", Vec::new()) {
            Ok(name) => name.as_bytes() == INITIAL_PIDNS,
            // A kernel without CONFIG_PID_NS has no other namespace.
            Err(errno) => errno == Errno::NOENT,
        }
    }

    /// The resident memory of this process, in bytes, without shared mappings of files in the trees: those
    /// bytes count as moved.
    pub(crate) fn resident(&self) -> u64 {
        let status = self.proc_file("self/status").unwrap_or_default();
        kibibytes(&status, b"RssAnon:") + kibibytes(&status, b"RssFile:")
    }

    /// Reads a file of procfs.
    pub(crate) fn proc_file(&self, path: &str) -> Result<Vec<u8>, Fault> {
        let file = openat(&self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .on("openat", path.as_bytes())?;
        read_whole(&file, 16 << 20).on("read", path.as_bytes())
    }

    /// Reads a small file of the root, with symbolic links resolved inside the root; `None` if it does not
    /// exist.
    pub(crate) fn root_file(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, Fault> {
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match open_in_root(self.root.as_fd(), path.as_bytes(), flags) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            opened => {
                let file = opened.on("openat2", path.as_bytes())?;
                read_whole(&file, limit).on("read", path.as_bytes()).map(Some)
            }
        }
    }
}

/// Opens `path` with symbolic links resolved inside `root`.
///
/// The kernel answers EAGAIN to a `..` if anything was mounted, unmounted or renamed since it began. In a
/// mount that has been detached, it answers so to itself: letting go of such a mount counts (`mntput`), and
/// happens behind each link whose access time changes. That is once a link.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let open = || openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    for _ in 1..TRIES {
        match open() {
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
    open()
}

/// Twice the links that the kernel follows in one path (MAXSYMLINKS), and more.
const TRIES: usize = 100;

/// A new file system, detached.
pub(crate) fn detached(kind: &str) -> Result<OwnedFd, Fault> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).on("fsopen", kind.as_bytes())?;
    fsconfig_create(context.as_fd()).on("fsconfig", kind.as_bytes())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .on("fsmount", kind.as_bytes())
}

/// The flags to open any kind of entry with.
pub(crate) const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens `path` below `root`, component by component because it may be longer than PATH_MAX. The result is
/// the topmost mount there. Symbolic links are not followed: paths of mounts contain none.
pub(crate) fn find(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Fault> {
    let mut at = openat(root, c".", PATH, Mode::empty()).on("openat", path)?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        at = openat(&at, name, PATH, Mode::empty()).on("openat", path)?;
    }
    Ok(at)
}

/// Reads a file of at most `limit` bytes; EFBIG if it is longer.
pub(crate) fn read_whole(file: &OwnedFd, limit: usize) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut part = vec![0; 4096];
    loop {
        match read(file, &mut part[..]) {
            Ok(0) => return Ok(text),
            Ok(count) if text.len() + count > limit => return Err(Errno::FBIG),
            Ok(count) => text.extend_from_slice(&part[..count]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The inode number of the initial PID namespace, which never changes (`PROC_PID_INIT_INO`).
const INITIAL_PIDNS: &[u8] = b"pid:[4026531836]";

/// The value of the line that begins with `name`, converted from KiB to bytes; 0 if there is no such line.
pub(crate) fn kibibytes(text: &[u8], name: &[u8]) -> u64 {
    number(text, name).unwrap_or(0).saturating_mul(1024)
}

/// The number on the line that begins with `name`.
pub(crate) fn number(text: &[u8], name: &[u8]) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    let digits = line.trim_ascii().split(|byte| *byte == b' ').next()?;
    core::str::from_utf8(digits).ok()?.parse().ok()
}
