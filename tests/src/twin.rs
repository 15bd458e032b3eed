//! The new root while the move is under way: known to nobody but the mover, whose descriptors lead to it.
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, openat};
use rustix::process::Pid;

/// The top of the tree that is moved to. Holding it keeps the file system alive when the mover is killed.
#[derive(Debug)]
pub struct Twin(OwnedFd);

const PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const TMPFS_MAGIC: u32 = 0x0102_1994;

impl Twin {
    /// Looks for it among the open directories of `pid`: a tmpfs that is not the one `old` is on.
    #[must_use]
    pub fn of(pid: Pid, old: impl AsFd) -> Option<Twin> {
        let old = fstat(old).ok()?.st_dev;
        let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
        let fds = std::fs::read_dir(proc.join("fd")).ok()?.filter_map(|fd| Some(fd.ok()?.path()));
        // At the end it is the root, and nothing else may lead to it.
        for path in fds.chain([proc.join("root")]) {
            let Ok(mut at) = openat(CWD, path, PATH, Mode::empty()) else { continue };
            let Ok(stat) = fstat(&at) else { continue };
            // The magic is 32 bits wide on every machine.
            let tmpfs =
                fstatfs(&at).is_ok_and(|fs| fs.f_type.to_le_bytes()[..4] == TMPFS_MAGIC.to_le_bytes());
            if !tmpfs || stat.st_dev == old {
                continue;
            }
            // From wherever the mover is to the top, which is its own parent or, when attached, has one elsewhere.
            let (mut inode, device) = (stat.st_ino, stat.st_dev);
            loop {
                let above = openat(&at, c"..", PATH, Mode::empty()).ok()?;
                let stat = fstat(&above).ok()?;
                if stat.st_ino == inode || stat.st_dev != device {
                    return Some(Twin(at));
                }
                (at, inode) = (above, stat.st_ino);
            }
        }
        None
    }

    /// Its top.
    #[must_use]
    pub fn root(&self) -> &OwnedFd {
        &self.0
    }
}
