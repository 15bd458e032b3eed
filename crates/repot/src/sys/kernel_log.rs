//! The kernel's log buffer.

use alloc::vec;
use alloc::vec::Vec;
use core::ffi::{c_char, c_int};

use rustix::io::Errno;

use super::last_error;

/// The newest `limit` bytes of the kernel's log (syslog(2), action 3).
///
/// # Errors
/// As syslog(2).
pub(crate) fn kernel_log(limit: usize) -> Result<Vec<u8>, Errno> {
    let mut text = vec![0u8; limit];
    let size = c_int::try_from(limit).map_err(|_| Errno::INVAL)?;
    // SAFETY: the buffer has `size` bytes. The wrapper klogctl is not in every C library.
    let length = unsafe { libc::syscall(libc::SYS_syslog, 3, text.as_mut_ptr().cast::<c_char>(), size) };
    match usize::try_from(length) {
        Ok(length) => {
            text.truncate(length);
            Ok(text)
        }
        Err(_) => Err(last_error()),
    }
}
