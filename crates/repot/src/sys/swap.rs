//! swapon(2) and swapoff(2).

use core::ffi::CStr;

use rustix::io::Errno;

use super::last_error;

/// Uses a block device with a swap header as swap, with the lowest priority.
///
/// # Errors
/// As swapon(2).
pub(crate) fn swapon(path: &CStr) -> Result<(), Errno> {
    // SAFETY: a C string and a number.
    result(unsafe { libc::swapon(path.as_ptr(), 0) })
}

/// Brings everything back into memory and stops using the device.
///
/// # Errors
/// As swapoff(2).
pub(crate) fn swapoff(path: &CStr) -> Result<(), Errno> {
    // SAFETY: a C string.
    result(unsafe { libc::swapoff(path.as_ptr()) })
}

fn result(returned: libc::c_int) -> Result<(), Errno> {
    if returned == 0 { Ok(()) } else { Err(last_error()) }
}
