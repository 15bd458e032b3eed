//! Executes the real init in the state in which the kernel would have started it.

use alloc::ffi::CString;
use alloc::vec::Vec;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, makedev, openat, statx};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::chdir;

use crate::error::{Error, Fault, Step};
use crate::sys::{self, Invocation};

/// The kernel's console: character device 5:1.
const CONSOLE: (u32, u32) = (5, 1);

/// Opens the new root's console as standard input, output and error, where these are closed or are the old root's: they would
/// keep the old root's memory. What an earlier stage has put there stays.
pub fn console() {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut opened = None;
    for number in 0..3 {
        if !wants_console(number) {
            continue;
        }
        if opened.is_none() {
            let kind = statx(CWD, c"/dev/console", AtFlags::empty(), StatxFlags::BASIC_STATS);
            let is_device = kind.is_ok_and(|status| {
                FileType::from_raw_mode(status.stx_mode.into()) == FileType::CharacterDevice
            });
            if !is_device {
                return;
            }
            // A console without a driver behind it gives ENXIO or EIO. The copy is out of the way of 0, 1 and 2, one of which
            // the kernel gives where they are closed.
            opened = openat(CWD, c"/dev/console", flags, Mode::empty())
                .and_then(|console| fcntl_dupfd_cloexec(console, 3))
                .ok();
        }
        if let Some(console) = &opened {
            let _ = sys::take_as(console.as_fd(), number);
        }
    }
}

fn wants_console(number: i32) -> bool {
    let stream = sys::stream(number);
    match statx(stream, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS) {
        Err(_) => true,
        Ok(status) => {
            FileType::from_raw_mode(status.stx_mode.into()) == FileType::CharacterDevice
                && makedev(status.stx_rdev_major, status.stx_rdev_minor) == makedev(CONSOLE.0, CONSOLE.1)
        }
    }
}

/// Executes the first of `inits` that lets itself be executed, as this program was called. `told` is called with each before it
/// is tried.
///
/// # Errors
/// The last failure; it does not return otherwise.
pub fn execute(inits: &[Vec<u8>], invocation: &Invocation, told: &dyn Fn(&[u8])) -> Error {
    // Where the kernel would have started it.
    let _ = chdir("/");
    let mut last = Errno::NOENT;
    let mut name = &b"init"[..];
    for path in inits {
        let Ok(program) = CString::new(path.as_slice()) else { continue };
        told(path);
        last = invocation.execute(&program);
        name = path;
    }
    Fault { call: "execve", path: name.to_vec(), errno: last }.at(Step::Handoff)
}
