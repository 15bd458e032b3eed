//! Loads the kernel modules that `repot pack --modules` put into the image.
//!
//! `.repot-modules/RELEASE/DRIVER.order` names the files of a driver, one a line, dependencies first. The
//! files are beside it. Only the folder of the running release is used, and all of them go when the root is
//! re-homed, unless `keep=all` is set: no other program knows them. The runner has a folder of its own in the
//! same format, since its drivers are needed later.

use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, statat, unlinkat};
use rustix::io::Errno;
use rustix::system::{finit_module, uname};

use crate::error::{Call, Fault, What};
use crate::metadata::keep_times;
use crate::site::read_whole;
use crate::walk::open;
use crate::walk::sweep::sweep;

/// The directory of the modules, relative to the root.
pub const DIRECTORY: &str = ".repot-modules";
/// The directory of the modules that the runner loads before its program, relative to the root.
pub const RUNNER_DIRECTORY: &str = ".repot-run.modules";
/// The maximum size of an order file, in bytes.
const LIMIT: usize = 64 * 1024;
/// How the name of an order file ends.
const ORDER: &[u8] = b".order";
const INIT_MODULE: &str = "finit_module";
/// `MODULE_INIT_COMPRESSED_FILE` (5.17): the kernel unpacks the file.
const COMPRESSED: i32 = 4;

/// Checks that the image has a driver for the running kernel.
///
/// # Errors
/// The call that failed.
pub(crate) fn find(old: BorrowedFd<'_>, driver: &str) -> Result<(), Fault> {
    order(old, DIRECTORY, driver).map(drop)
}

/// Loads a driver and what it needs. `sysfs` shows which modules are loaded or built in.
///
/// # Errors
/// The call that failed; [`cure`] has what helps.
pub(crate) fn load(old: BorrowedFd<'_>, sysfs: &OwnedFd, driver: &str) -> Result<(), Fault> {
    load_from(old, DIRECTORY, sysfs, driver)
}

/// Loads a driver of a directory in this format, [`RUNNER_DIRECTORY`] for instance.
///
/// # Errors
/// The call that failed; [`cure`] has what helps.
pub fn load_from(root: impl AsFd, directory: &str, sysfs: &OwnedFd, driver: &str) -> Result<(), Fault> {
    let root = root.as_fd();
    for name in order(root, directory, driver)?.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if name.is_empty() || is_present(sysfs, name) {
            continue;
        }
        let path = [&folder(directory)[..], b"/", name].concat();
        let flags = if name.ends_with(b".ko") { 0 } else { COMPRESSED };
        match finit_module(file(root, &path)?, c"", flags) {
            Err(errno) if errno != Errno::EXIST => return Err(errno).on(INIT_MODULE, &path),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the modules of every release from the root.
///
/// # Errors
/// The call that failed.
pub(crate) fn remove(old: &OwnedFd) -> Result<(), Fault> {
    let folder = match open(old, c".repot-modules") {
        // Of another type, it is not ours.
        Err(Fault { errno: Errno::NOENT | Errno::NOTDIR | Errno::LOOP, .. }) => return Ok(()),
        folder => folder.map_err(|fault| fault.on(DIRECTORY.into()))?,
    };
    keep_times(old.as_fd(), &mut || {
        sweep(&folder, None)?;
        unlinkat(old, DIRECTORY, AtFlags::REMOVEDIR).on("unlinkat", DIRECTORY.as_bytes())
    })
}

/// The names of the files of a driver, a line each.
fn order(old: BorrowedFd<'_>, directory: &str, driver: &str) -> Result<Vec<u8>, Fault> {
    let path = [&folder(directory)[..], b"/", driver.as_bytes(), ORDER].concat();
    file(old, &path).and_then(|file| read_whole(&file, LIMIT).on("read", &path))
}

/// The directory of the running release.
fn folder(directory: &str) -> Vec<u8> {
    [directory.as_bytes(), b"/", uname().release().to_bytes()].concat()
}

fn file(old: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(old, path, flags, Mode::empty(), resolve).on("openat2", path)
}

/// Whether a module is loaded or built in. The file name has `-` where the module's name has `_`, at times.
fn is_present(sysfs: &OwnedFd, name: &[u8]) -> bool {
    let stem = name.split(|byte| *byte == b'.').next().unwrap_or_default();
    let stem: Vec<u8> = stem.iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).collect();
    statat(sysfs, [b"module/", &stem[..]].concat(), AtFlags::empty()).is_ok()
}

/// What helps after a fault of this file, as a clause.
pub fn cure(fault: &Fault) -> &'static str {
    if fault.what != What::Call(INIT_MODULE) {
        let missing = fault.errno == Errno::NOENT && fault.path.ends_with(ORDER);
        return if missing { "; the driver is not built in: repot pack --modules adds it" } else { "" };
    }
    match fault.errno {
        Errno::NOKEY | Errno::KEYREJECTED | Errno::BADMSG => "; it is not signed for this kernel",
        Errno::PERM => "; the kernel accepts no modules (lockdown=, modules_disabled): build the driver in",
        Errno::NOEXEC | Errno::INVAL | Errno::NOENT => "; it is not for this kernel, see the kernel log",
        Errno::OPNOTSUPP => "; this kernel does not decompress it: repot pack --modules adds it uncompressed",
        Errno::NOSYS => "; this kernel has no modules: build the driver in",
        _ => "",
    }
}
