//! The system calls that rustix has no safe function for.
#![allow(unsafe_code)]

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::UnshareFlags;
use std::io;
use std::os::fd::BorrowedFd;

/// The size of a page. That of rustix needs `/proc` before Linux 6.4.
pub(crate) fn page_size() -> u64 {
    // SAFETY: a plain query.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// For each page of a file's `len` bytes from `offset`: whether the page cache has it.
///
/// Reading a hole of a ramfs file fills it. Only this call finds the hole and keeps it.
pub(crate) fn resident(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Vec<bool>> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    let mut pages = vec![0_u8; len.div_ceil(4096)];
    // SAFETY: a new mapping at an address of the kernel's choice, which is never read.
    let map = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, offset) }?;
    // SAFETY: `pages` has one byte for each page of the mapping.
    let result = unsafe { libc::mincore(map, len, pages.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: the mapping made above, whole. Nothing else uses it.
    unsafe { munmap(map, len) }?;
    if result == 0 { Ok(pages.iter().map(|page| page & 1 == 1).collect()) } else { Err(error) }
}

/// Runs `work` on a thread whose working directory is its own.
///
/// Extended attributes of fifos, devices and symlinks can only be read by path. A working directory per
/// thread makes a path out of every name, even without `/proc`.
pub(crate) fn with_own_working_directory<T: Send>(
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            // SAFETY: descriptors stay shared. Only working directory, root and umask become the thread's
            // own.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
            work()
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
