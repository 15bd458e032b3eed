//! The few system calls rustix has no safe name for.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

/// For each page of a file's `len` bytes from `offset`, whether the page cache holds it.
///
/// Reading a hole of a ramfs file fills it; this is the one way to see it and leave it.
pub fn resident(file: impl AsFd, offset: u64, len: usize) -> io::Result<Vec<bool>> {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let mut map = vec![0u8; len.div_ceil(4096)];
    // SAFETY: a new mapping at an address of the kernel's choice; nothing is ever read through it.
    let at =
        unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file.as_fd(), offset) }?;
    // SAFETY: `map` has one byte for each page of the mapping.
    let code = unsafe { libc::mincore(at, len, map.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: the mapping made above, whole.
    unsafe { munmap(at, len) }?;
    if code == 0 { Ok(map.into_iter().map(|byte| byte & 1 == 1).collect()) } else { Err(error) }
}

/// The kernel log, whole, as `syslog(2)` gives it; needs no `/dev/kmsg`.
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

/// Runs `job` in a child process and gives its exit code; -1 when a signal ended it.
///
/// Only for a process with one thread: the child goes on with everything the parent has.
pub fn in_child(job: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: callers have one thread, so the child's memory is whole.
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

/// Starts `job` in a child process that outlives this one's program; gives its pid.
///
/// Only for a process with one thread.
pub fn spawn(job: impl FnOnce()) -> io::Result<libc::pid_t> {
    // SAFETY: callers have one thread, so the child's memory is whole.
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

/// New namespaces for this process.
pub fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptors stay shared with nobody: the process has one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Replaces this program with the one behind `file` or at `path`; returns only an error.
pub fn exec(path: &std::ffi::CStr, argv: &[std::ffi::CString], environ: &[std::ffi::CString]) -> io::Error {
    let pointers = |strings: &[std::ffi::CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, environ) = (pointers(argv), pointers(environ));
    // SAFETY: both lists end with a null and outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environ.as_ptr()) };
    io::Error::last_os_error()
}

/// Whether a descriptor's number is open.
pub fn is_open(number: i32) -> bool {
    // SAFETY: F_GETFD changes nothing, whatever the number is.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Makes `file` stay open across exec, under the given number.
pub fn duplicate(file: impl AsFd, number: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the caller has nothing else at `number`.
    if unsafe { libc::dup2(file.as_fd().as_raw_fd(), number) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
