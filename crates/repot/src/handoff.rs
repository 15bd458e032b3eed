//! Executes the real init in the state in which the kernel would have started it.

use core::ffi::CStr;
use core::fmt;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, makedev, openat, statx};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::chdir;

use crate::error::{Quoted, Step, name_of};
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

/// An init that could not be executed.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'i> {
    /// Its path.
    pub path: &'i CStr,
    /// The kernel's answer.
    pub errno: Errno,
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, meaning) = name_of(self.errno);
        let path = Quoted(self.path.to_bytes());
        write!(f, "{}: execve {path}: {name} ({meaning}, {})", Step::Handoff, self.errno.raw_os_error())
    }
}

/// Executes the first of `inits` that lets itself be executed at the second try at the latest, as this program was called. `told` is called with each before it
/// is tried, `refused` after it could not be. Returns when none could. Nothing is allocated: that may be what went wrong.
pub fn execute<'i>(
    inits: impl IntoIterator<Item = &'i CStr>,
    invocation: &Invocation,
    told: &dyn Fn(&CStr),
    refused: &dyn Fn(&Refused<'_>),
) {
    // Where the kernel would have started it.
    let _ = chdir("/");
    for path in inits {
        told(path);
        // What kept it from being executed may have passed, as want of memory does, and another init is not what was asked for.
        invocation.execute(path);
        let errno = invocation.execute(path);
        refused(&Refused { path, errno });
    }
}
