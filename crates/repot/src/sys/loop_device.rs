//! The status of a loop device.

use core::mem::MaybeUninit;

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;

use super::last_error;

/// `LOOP_GET_STATUS64`, include/uapi/linux/loop.h.
const LOOP_GET_STATUS64: u32 = 0x4c05;

/// The beginning of `struct loop_info64`, 232 bytes, include/uapi/linux/loop.h.
#[repr(C)]
struct LoopInfo64 {
    /// The device of the backing file, as `huge_encode_dev` packs it.
    device: u64,
    inode: u64,
    rest: [u64; 27],
}

/// The number of the device that holds the backing file of a loop device: major, minor.
///
/// # Errors
/// As ioctl(2); ENXIO without a backing file.
pub(crate) fn loop_backing(device: BorrowedFd<'_>) -> Result<(u32, u32), Errno> {
    let mut info = MaybeUninit::<LoopInfo64>::zeroed();
    // SAFETY: the kernel writes a `struct loop_info64`, which has the size of `LoopInfo64`; zeros are valid
    // for it too.
    let info = unsafe {
        if libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, info.as_mut_ptr()) != 0 {
            return Err(last_error());
        }
        info.assume_init()
    };
    let device = info.device;
    // `huge_encode_dev` is `new_encode_dev`: 12 bits of major between the low 8 and the high 12 bits of
    // minor.
    let bits = |shift: u32, count: u32| u32::try_from(device >> shift & ((1 << count) - 1)).unwrap_or(0);
    Ok((bits(8, 12), bits(0, 8) | bits(20, 12) << 8))
}
