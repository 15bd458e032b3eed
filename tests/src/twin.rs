//! The new root during the move. Only the mover's descriptors lead to it.
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use repot_snapshot::{Snapshot, snapshot};
use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, openat};
use rustix::process::Pid;

/// What may be the top of the new tree. It keeps the file systems alive if the mover is killed.
#[derive(Debug)]
pub struct Twin(Vec<OwnedFd>);

const PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const TMPFS_MAGIC: u32 = 0x0102_1994;

impl Twin {
    /// Looks among the open directories of `pid`, and at its root, where the new tree is in the end.
    #[must_use]
    pub fn of(pid: Pid, old: impl AsFd) -> Twin {
        let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
        let listed = std::fs::read_dir(proc.join("fd")).into_iter().flatten();
        let fds = listed.filter_map(|fd| Some(fd.ok()?.path()));
        let old = fstat(old).expect("the old root").st_dev;
        let tops = fds.chain([proc.join("cwd"), proc.join("root")]).filter_map(|path| top(path, old));
        Twin(tops.collect())
    }

    /// All of them.
    #[must_use]
    pub fn tops(&self) -> &[OwnedFd] {
        &self.0
    }

    /// The whole of the new tree, or nothing if there is none.
    ///
    /// The place where mounts wait while the tree moves is a tmpfs too. And a way up can end early, below
    /// another mount. So it is the largest.
    ///
    /// # Panics
    /// If a tree cannot be read.
    #[must_use]
    pub fn tree(&self) -> Snapshot {
        let trees = self.tops().iter().map(|top| snapshot(top).expect("a snapshot of a new tree"));
        trees.max_by_key(Snapshot::len).unwrap_or_default()
    }
}

/// The top of the tmpfs where `path` is, unless it is the file system `old`.
fn top(path: PathBuf, old: u64) -> Option<OwnedFd> {
    let mut at = openat(CWD, path, PATH, Mode::empty()).ok()?;
    let stat = fstat(&at).ok()?;
    // The magic is 32 bits wide on every machine.
    let magic = fstatfs(&at).ok()?.f_type.to_le_bytes();
    if magic[..4] != TMPFS_MAGIC.to_le_bytes() || stat.st_dev == old {
        return None;
    }
    // The parent of the top is the top itself or, if it is mounted, on another device.
    let (mut inode, device) = (stat.st_ino, stat.st_dev);
    loop {
        let above = openat(&at, c"..", PATH, Mode::empty()).ok()?;
        let stat = fstat(&above).ok()?;
        if stat.st_ino == inode || stat.st_dev != device {
            return Some(at);
        }
        (at, inode) = (above, stat.st_ino);
    }
}
