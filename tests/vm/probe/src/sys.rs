//! The system calls that rustix has no safe function for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

/// The whole kernel log by `syslog(2)`, without `/dev/kmsg`.
pub fn kernel_log() -> io::Result<Vec<u8>> {
    const READ_ALL: libc::c_int = 3;
    const SIZE_BUFFER: libc::c_int = 10;
    // SAFETY: no buffer is asked for.
    let size = unsafe { libc::klogctl(SIZE_BUFFER, std::ptr::null_mut(), 0) };
    let mut log = vec![0u8; usize::try_from(size).map_err(|_| io::Error::last_os_error())?];
    // SAFETY: `log` is `size` bytes long.
    let read = unsafe { libc::klogctl(READ_ALL, log.as_mut_ptr().cast(), size) };
    log.truncate(usize::try_from(read).map_err(|_| io::Error::last_os_error())?);
    Ok(log)
}

/// Keeps the kernel's messages off the console, or lets them on it again.
pub fn quiet_console(quiet: bool) -> io::Result<()> {
    const CONSOLE_OFF: libc::c_int = 6;
    const CONSOLE_ON: libc::c_int = 7;
    // SAFETY: neither takes a buffer.
    match unsafe { libc::klogctl(if quiet { CONSOLE_OFF } else { CONSOLE_ON }, std::ptr::null_mut(), 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Runs `job` in a child process and returns its exit code, or -1 if a signal ended it.
///
/// Only for a process with one thread: the child continues with a copy of the parent's memory.
pub fn in_child(job: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: callers have one thread, so the child's memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = job();
            // SAFETY: ends the child without the parent's clean-up.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: `status` is where the kernel may write.
            while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 })
        }
    }
}

/// Starts `job` in a child process, which keeps running when this process executes another program. Returns
/// its PID.
///
/// Only for a process with one thread.
pub fn spawn(job: impl FnOnce()) -> io::Result<libc::pid_t> {
    // SAFETY: callers have one thread, so the child's memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            job();
            // SAFETY: ends the child without the parent's clean-up.
            unsafe { libc::_exit(1) }
        }
        child => Ok(child),
    }
}

/// Moves this process into new namespaces.
pub fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptors stay shared with nobody: the process has one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Executes the program at `path`. Returns only if that fails.
pub fn exec(path: &std::ffi::CStr, argv: &[std::ffi::CString], environ: &[std::ffi::CString]) -> io::Error {
    let pointers = |strings: &[std::ffi::CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, environ) = (pointers(argv), pointers(environ));
    // SAFETY: both lists end with a null and outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environ.as_ptr()) };
    io::Error::last_os_error()
}

/// Whether a descriptor is open.
pub fn is_open(number: i32) -> bool {
    // SAFETY: F_GETFD changes nothing, whatever the number is.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Duplicates `file` to the given number, where it stays open across exec.
pub fn duplicate(file: impl AsFd, number: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the caller has nothing else at `number`.
    if unsafe { libc::dup2(file.as_fd().as_raw_fd(), number) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
