//! The file systems that every program expects: `/proc`, `/dev` and the like.

use alloc::ffi::CString;
use core::ffi::CStr;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, StatxAttributes, StatxFlags, chmod, makedev, mkdirat, mknodat, statx,
    symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::error::{Call, Fault};
use crate::log::{Level, Log};

/// A file system and its place.
#[derive(Clone, Copy, Debug)]
pub struct Essential {
    /// Its name in a configuration.
    pub name: &'static str,
    /// Its mount point.
    pub path: &'static CStr,
    fstype: &'static CStr,
    flags: MountFlags,
    options: &'static CStr,
}

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
const FILES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// All of them, in the order in which they are mounted.
pub const ESSENTIAL: [Essential; 9] = [
    Essential { name: "proc", path: c"/proc", fstype: c"proc", flags: SAFE, options: c"" },
    Essential { name: "sysfs", path: c"/sys", fstype: c"sysfs", flags: SAFE, options: c"" },
    Essential { name: "devtmpfs", path: c"/dev", fstype: c"devtmpfs", flags: DEVICES, options: c"mode=0755" },
    Essential {
        name: "devpts",
        path: c"/dev/pts",
        fstype: c"devpts",
        flags: DEVICES,
        // Group 5 is `tty` in every distribution; without its write permission nobody can be written to.
        options: c"mode=0620,ptmxmode=0666,gid=5",
    },
    Essential { name: "shm", path: c"/dev/shm", fstype: c"tmpfs", flags: SAFE, options: c"mode=1777" },
    Essential { name: "mqueue", path: c"/dev/mqueue", fstype: c"mqueue", flags: SAFE, options: c"" },
    Essential { name: "cgroup2", path: c"/sys/fs/cgroup", fstype: c"cgroup2", flags: SAFE, options: c"" },
    Essential { name: "run", path: c"/run", fstype: c"tmpfs", flags: FILES, options: c"mode=0755" },
    Essential { name: "tmp", path: c"/tmp", fstype: c"tmpfs", flags: FILES, options: c"mode=1777" },
];

/// The nodes of a `/dev` that the kernel does not fill, and their device numbers.
const NODES: [(&CStr, u32, u32); 8] = [
    (c"/dev/null", 1, 3),
    (c"/dev/zero", 1, 5),
    (c"/dev/full", 1, 7),
    (c"/dev/random", 1, 8),
    (c"/dev/urandom", 1, 9),
    (c"/dev/kmsg", 1, 11),
    (c"/dev/tty", 5, 0),
    (c"/dev/console", 5, 1),
];

/// The links in `/dev` that udev makes, and their targets.
const LINKS: [(&CStr, &CStr); 4] = [
    (c"/dev/fd", c"/proc/self/fd"),
    (c"/dev/stdin", c"/proc/self/fd/0"),
    (c"/dev/stdout", c"/proc/self/fd/1"),
    (c"/dev/stderr", c"/proc/self/fd/2"),
];

/// Mounts those of these names, in the order in which they depend on each other. What fails is logged.
pub(crate) fn mount_all(names: &[&str], log: &Log) {
    for essential in ESSENTIAL.iter().filter(|essential| names.contains(&essential.name)) {
        if let Err(fault) = essential.mount() {
            log.line(Level::Warning, format_args!("mount={}: {fault}", essential.name));
        }
    }
}

impl Essential {
    /// Mounts it, and makes its mount point if that is missing. Does nothing if something is mounted there
    /// already. A kernel without devtmpfs gets a tmpfs with the usual nodes.
    ///
    /// # Errors
    /// The call that failed, with the path. Without the driver: `ENODEV`.
    pub fn mount(&self) -> Result<(), Fault> {
        if is_mounted(self.path) {
            return Ok(());
        }
        make(self.path)?;
        let mounted = mount(self.fstype, self.path, self.fstype, self.flags, self.options);
        let is_dev = self.fstype == c"devtmpfs";
        match mounted {
            // One instance of a file system may be mounted there already, which statx did not see.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(Errno::NODEV) if is_dev => {
                mount(c"tmpfs", self.path, c"tmpfs", self.flags, self.options)
                    .on("mount", self.path.to_bytes())?;
                fill();
            }
            Err(errno) => return Err(errno).on("mount", self.path.to_bytes()),
        }
        if is_dev {
            for (link, target) in LINKS {
                let _ = symlinkat(target, CWD, link);
            }
        }
        Ok(())
    }
}

/// Whether something is mounted at `path`.
pub fn is_mounted(path: &CStr) -> bool {
    // A symbolic link is followed, as mount(2) does.
    statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Makes a mount point and its parents.
pub(crate) fn make(path: &CStr) -> Result<(), Fault> {
    let bytes = path.to_bytes();
    let ends = bytes.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain([bytes.len()]) {
        let parent = CString::new(&bytes[..end]).map_err(|_| Errno::INVAL).on("mkdirat", bytes)?;
        match mkdirat(CWD, &parent, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).on("mkdirat", &bytes[..end]),
        }
    }
    Ok(())
}

/// Fills a `/dev` that is an empty tmpfs. A node that cannot be made is left out: in a container none can.
fn fill() {
    for (path, major, minor) in NODES {
        if mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), makedev(major, minor)).is_ok() {
            // The umask does not apply to chmod.
            let mode = if minor == 11 || minor == 1 { 0o600 } else { 0o666 };
            let _ = chmod(path, Mode::from_raw_mode(mode));
        }
    }
    let _ = symlinkat(c"pts/ptmx", CWD, c"/dev/ptmx");
}
