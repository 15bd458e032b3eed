//! Executes the real init in the state in which the kernel would have started it.

use core::ffi::CStr;
use core::fmt;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, makedev, mknodat, openat, statx};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd};
use rustix::process::chdir;

use crate::display::Quoted;
use crate::error::{Step, name_of, retry_once};
#[cfg(doc)]
use crate::options::Options;
use crate::site::detached;
use crate::sys::{self, Invocation};

/// The kernel's console: character device 5:1.
const CONSOLE: (u32, u32) = (5, 1);

/// Opens the console as standard input, output and error, if these are closed or are the console of the old
/// root: an open descriptor would keep the old root's memory. Whatever an earlier stage has put there stays.
///
/// The console is the `/dev/console` of the new root. If that is missing or no device, and this process is in
/// the initial PID namespace (`machine`), a node is made that is in no root.
pub fn console(machine: bool) {
    let mut opened = None;
    for number in 0..3 {
        if !wants_console(number) {
            continue;
        }
        if opened.is_none() {
            opened = open_console(machine).ok();
        }
        if let Some(console) = &opened {
            let _ = sys::redirect(console.as_fd(), number);
        }
    }
}

/// A console without a driver returns ENXIO or EIO.
fn open_console(machine: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let kind = statx(CWD, c"/dev/console", AtFlags::empty(), StatxFlags::BASIC_STATS);
    let is_device = kind.is_ok_and(|status| file_type(&status) == FileType::CharacterDevice);
    let console = if is_device {
        openat(CWD, c"/dev/console", flags, Mode::empty())?
    } else if machine {
        // It goes away with the last descriptor of the console.
        let mount = detached("tmpfs").map_err(|fault| fault.errno)?;
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(&mount, c"console", FileType::CharacterDevice, mode, makedev(CONSOLE.0, CONSOLE.1))?;
        openat(&mount, c"console", flags, Mode::empty())?
    } else {
        return Err(Errno::NXIO);
    };
    // If 0, 1 or 2 is closed, the kernel returns that number, so the descriptor is moved out of the way.
    fcntl_dupfd_cloexec(console, 3)
}

fn wants_console(number: i32) -> bool {
    let stream = sys::stream(number);
    // It was closed when this program was executed, or is ours.
    if fcntl_getfd(stream).is_ok_and(|flags| flags.contains(FdFlags::CLOEXEC)) {
        return true;
    }
    let Ok(status) = statx(stream, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS) else { return true };
    if file_type(&status) == FileType::CharacterDevice {
        return makedev(status.stx_rdev_major, status.stx_rdev_minor) == makedev(CONSOLE.0, CONSOLE.1);
    }
    // The kernel opens whatever is called /dev/console; `docker export` writes an empty file there. A file
    // has been opened again in the new root by now; a FIFO that has moved is another one.
    let identity = |file: &Statx| (file.stx_dev_major, file.stx_dev_minor, file.stx_ino);
    let is_fifo = |file: &Statx| file_type(file) == FileType::Fifo;
    statx(CWD, c"/dev/console", AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).is_ok_and(|file| {
        identity(&file) == identity(&status) || is_fifo(&file) && is_fifo(&status) && status.stx_nlink == 0
    })
}

fn file_type(status: &Statx) -> FileType {
    FileType::from_raw_mode(status.stx_mode.into())
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
/// `chain` is the image's own init, whose place this program has taken (see [`Options::chain`]). It gets the
/// name that the kernel would have called it by: a multi-call program finds out from that what it is.
///
/// `before` is called with each init before it is tried, `failed` after it could not be executed. Returns if
/// none could. Allocates nothing: memory may be what is lacking.
pub fn execute<'i>(
    inits: impl IntoIterator<Item = &'i CStr>,
    chain: Option<&CStr>,
    invocation: &Invocation,
    before: &dyn Fn(&CStr),
    failed: &dyn Fn(&NotExecuted<'_>),
) {
    // The kernel would have started it there.
    let _ = chdir("/");
    for path in inits {
        before(path);
        let name = if chain == Some(path) { called(path, invocation) } else { path };
        let Err(errno) = retry_once(|| Err::<(), _>(invocation.execute_as(path, name))) else { continue };
        failed(&NotExecuted { path, errno });
    }
}

/// What the kernel would have called the image's own init. If that still is `/init`, this program was called
/// by another name (`rdinit=`).
fn called<'i>(path: &'i CStr, invocation: &'i Invocation) -> &'i CStr {
    if path == c"/init" { path } else { invocation.name().unwrap_or(path) }
}
