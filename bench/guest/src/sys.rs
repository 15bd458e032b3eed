//! A memory-mapped file, and memory in single pages.
#![allow(unsafe_code)]

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::io;
use std::os::fd::OwnedFd;

/// Writes `size` bytes of `from` to `to`, from a mapping.
pub(crate) fn write_mapped(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
    let len = usize::try_from(size).map_err(io::Error::other)?;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, from, 0) }?;
    // SAFETY: the mapping has that length, and nobody truncates or changes the file while it is used.
    let bytes = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), len) };
    let mut done = 0;
    let written = loop {
        match rustix::io::pwrite(to, &bytes[done..], done as u64) {
            Ok(count) => done += count,
            Err(error) => break Err(error),
        }
        if done == len {
            break Ok(());
        }
    };
    // SAFETY: the mapping made above, whole. Nothing refers to it any more.
    unsafe { munmap(at, len) }?;
    Ok(written?)
}

/// Memory in single pages of 4 KiB.
pub(crate) struct Pages {
    at: *mut std::ffi::c_void,
    len: usize,
}

impl Pages {
    /// Takes this many bytes and touches each page.
    pub(crate) fn take(len: usize) -> io::Result<Pages> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, flags) }?;
        // SAFETY: the mapping made above, whole.
        unsafe { madvise(at, len, Advice::LinuxNoHugepage) }?;
        for page in (0..len).step_by(4096) {
            // SAFETY: within the mapping. Nothing else refers to it.
            unsafe { at.cast::<u8>().add(page).write_volatile(1) };
        }
        Ok(Pages { at, len })
    }

    /// Releases every second page.
    pub(crate) fn give_back_alternate(&mut self) -> io::Result<()> {
        for page in (0..self.len).step_by(2 * 4096) {
            // SAFETY: one page within the mapping. Nothing refers to its contents.
            unsafe { madvise(self.at.byte_add(page), 4096, Advice::LinuxDontNeed) }?;
        }
        Ok(())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `take`, whole. Nothing refers to it any more.
        let _ = unsafe { munmap(self.at, self.len) };
    }
}
