//! The loop devices of the machine, and the file systems of their backing files.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Dir, FileType, Mode, OFlags, makedev, mknodat, openat};
use rustix::io::Errno;

use super::mountinfo::{Device, device};
use crate::site::{detached, read_whole};
use crate::sys;

/// A loop device that has a backing file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// Its name, such as `loop0`.
    pub name: String,
    /// The device number of the file system of its backing file; `None` if it could not be read.
    pub backing: Option<Device>,
}

/// All loop devices with a backing file. Empty where there is no sysfs, which needs `CONFIG_SYSFS`, as loop
/// devices do to be of use; and in a container that may not mount one.
pub(super) fn loops() -> Vec<Loop> {
    find().unwrap_or_default()
}

fn find() -> Result<Vec<Loop>, Errno> {
    let sysfs = detached("sysfs").map_err(|fault| fault.errno)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let block = openat(&sysfs, "block", flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in Dir::read_from(&block)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !name.starts_with("loop") {
            continue;
        }
        // The directory exists only while the device has a backing file.
        let Ok(_) = openat(&block, alloc::format!("{name}/loop"), flags, Mode::empty()) else { continue };
        let backing = backing(&block, name).ok().flatten();
        found.push(Loop { name: name.to_string(), backing });
    }
    Ok(found)
}

/// The file system of the backing file. Asked of the device itself: the path in sysfs may have been mounted
/// over since.
fn backing(block: &OwnedFd, name: &str) -> Result<Option<Device>, Errno> {
    let read = OFlags::RDONLY | OFlags::CLOEXEC;
    let number = openat(block, alloc::format!("{name}/dev"), read, Mode::empty())?;
    let Some(number) = device(read_whole(&number, 64)?.trim_ascii()) else { return Ok(None) };
    // There may be no /dev.
    let place = detached("tmpfs").map_err(|fault| fault.errno)?;
    let node = makedev(number.major, number.minor);
    mknodat(&place, c"loop", FileType::BlockDevice, Mode::RUSR, node)?;
    let opened = openat(&place, c"loop", read | OFlags::NONBLOCK, Mode::empty())?;
    sys::loop_backing(opened.as_fd()).map(|(major, minor)| Some(Device { major, minor }))
}
