//! A file as memory.
#![allow(unsafe_code)]

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::OwnedFd;

/// Writes `size` bytes of `from`, as they are mapped, to `to`.
pub(crate) fn write_mapped(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
    let len = usize::try_from(size).map_err(io::Error::other)?;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, from, 0) }?;
    // SAFETY: the mapping is that long, and nobody shortens or changes the file meanwhile.
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
    // SAFETY: the mapping made above, whole, which nothing refers to any more.
    unsafe { munmap(at, len) }?;
    Ok(written?)
}
