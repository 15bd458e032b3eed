//! The kernel modules that the tool put into the image for the program: kernels of distributions have the
//! drivers of virtual machines as modules, and nothing else loads them here.

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;

use repot::modules::{RUNNER_DIRECTORY, cure, load_from};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, unlinkat};
use rustix::io::Errno;
use rustix::system::uname;

use crate::log::error;

/// How the name of the file that lists the modules of a driver ends.
const ORDER: &[u8] = b".order";

/// Loads all drivers for the running kernel. What fails is logged: the program may do without.
pub(crate) fn load() {
    let Ok(all) = directory(CWD, format!("/{RUNNER_DIRECTORY}").as_bytes()) else { return };
    let (Ok(root), Ok(sysfs)) = (directory(CWD, b"/"), directory(CWD, b"/sys")) else { return };
    let kernel = uname();
    let names = match directory(&all, kernel.release().to_bytes()) {
        Ok(folder) => names(&folder),
        Err(_) => Vec::new(),
    };
    if names.is_empty() {
        let release = kernel.release().to_bytes().escape_ascii();
        error(format_args!("run: /{RUNNER_DIRECTORY} has no modules for this kernel, {release}"));
    }
    for name in names {
        let driver = name.to_bytes().strip_suffix(ORDER).and_then(|name| core::str::from_utf8(name).ok());
        if let Some(driver) = driver
            && let Err(fault) = load_from(&root, RUNNER_DIRECTORY, &sysfs, driver)
        {
            error(format_args!("run: driver {driver}: {fault}{}", cure(&fault)));
        }
    }
}

/// Removes the modules of every kernel.
pub(crate) fn remove() {
    let Ok(all) = directory(CWD, format!("/{RUNNER_DIRECTORY}").as_bytes()) else { return };
    for release in names(&all) {
        if let Ok(folder) = directory(&all, release.to_bytes()) {
            for file in names(&folder) {
                let _ = unlinkat(&folder, &file, AtFlags::empty());
            }
        }
        let _ = unlinkat(&all, &release, AtFlags::REMOVEDIR);
    }
    let _ = unlinkat(CWD, format!("/{RUNNER_DIRECTORY}").as_str(), AtFlags::REMOVEDIR);
}

fn directory(at: impl rustix::fd::AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

/// The names in a directory.
pub(crate) fn names(directory: &OwnedFd) -> Vec<CString> {
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(Ok(entry)) = entries.next() {
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(CString::from(entry.file_name()));
        }
    }
    names
}
