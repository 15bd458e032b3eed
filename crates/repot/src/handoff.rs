//! Executes the real init in the state in which the kernel would have started it.

use core::ffi::CStr;
use core::fmt;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, makedev, openat, statx};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::chdir;

use crate::display::Quoted;
use crate::error::{Step, name_of, retry_once};
use crate::sys::{self, Invocation};

/// The kernel's console: character device 5:1.
const CONSOLE: (u32, u32) = (5, 1);

/// Opens the new root's console as standard input, output and error, if these are closed or are the console
/// of the old root: an open descriptor would keep the old root's memory. Whatever an earlier stage has put
/// there stays.
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
            // A console without a driver returns ENXIO or EIO. If 0, 1 or 2 is closed, the kernel returns
            // that number, so the descriptor is moved out of the way.
            opened = openat(CWD, c"/dev/console", flags, Mode::empty())
                .and_then(|console| fcntl_dupfd_cloexec(console, 3))
                .ok();
        }
        if let Some(console) = &opened {
            let _ = sys::redirect(console.as_fd(), number);
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
pub struct NotExecuted<'i> {
    /// Its path.
    pub path: &'i CStr,
    /// The kernel's answer.
    pub errno: Errno,
}

impl fmt::Display for NotExecuted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, meaning) = name_of(self.errno);
        let path = Quoted(self.path.to_bytes());
        write!(f, "{}: execve {path}: {name} ({meaning}, {})", Step::Handoff, self.errno.raw_os_error())
    }
}

impl core::error::Error for NotExecuted<'_> {}

/// Executes the first of `inits` that works, with this program's arguments and environment. Each is tried
/// twice: a transient ENOMEM must not stop a boot, and another init is not what was asked for.
///
/// `before` is called with each init before it is tried, `failed` after it could not be executed. Returns if
/// none could. Allocates nothing: memory may be what is lacking.
pub fn execute<'i>(
    inits: impl IntoIterator<Item = &'i CStr>,
    invocation: &Invocation,
    before: &dyn Fn(&CStr),
    failed: &dyn Fn(&NotExecuted<'_>),
) {
    // The kernel would have started it there.
    let _ = chdir("/");
    for path in inits {
        before(path);
        let Err(errno) = retry_once(|| Err::<(), _>(invocation.execute(path))) else { continue };
        failed(&NotExecuted { path, errno });
    }
}
