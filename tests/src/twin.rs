//! The new root during the move. Only the mover's descriptors lead to it.
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, fstat, fstatfs, openat};
use rustix::process::Pid;

/// The top of the new tree. It keeps the file system alive if the mover is killed.
#[derive(Debug)]
pub struct Twin(OwnedFd);

const PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const TMPFS_MAGIC: u32 = 0x0102_1994;

impl Twin {
    /// Finds it among the open directories of `pid`: a tmpfs that is not the file system of `old`.
    #[must_use]
    pub fn of(pid: Pid, old: impl AsFd) -> Option<Twin> {
        let old = fstat(old).ok()?.st_dev;
        let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
        let fds = std::fs::read_dir(proc.join("fd")).ok()?.filter_map(|fd| Some(fd.ok()?.path()));
        // At the end it is the root, and maybe no descriptor leads to it.
        for path in fds.chain([proc.join("root")]) {
            let Ok(mut at) = openat(CWD, path, PATH, Mode::empty()) else { continue };
            let Ok(stat) = fstat(&at) else { continue };
            // The magic is 32 bits wide on every machine.
            let tmpfs =
                fstatfs(&at).is_ok_and(|fs| fs.f_type.to_le_bytes()[..4] == TMPFS_MAGIC.to_le_bytes());
            if !tmpfs || stat.st_dev == old {
                continue;
            }
            // From wherever the mover is up to the top, whose parent is itself or, if it is mounted, on
            // another device.
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
