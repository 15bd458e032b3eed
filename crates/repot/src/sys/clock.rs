//! The clock, read through the C library.
//!
//! rustix reads the clock through the vDSO and panics if neither `PR_GET_AUXV` (6.4) nor /proc shows where it
//! is. The C library received the auxiliary vector from the kernel at program start.

use core::mem::MaybeUninit;

/// Nanoseconds since boot (`CLOCK_MONOTONIC`).
pub fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds of CPU time that this thread has used, in user space and in the kernel.
pub(crate) fn cpu_time() -> u64 {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the kernel fills the struct. All zeros is a valid value too.
    let time = unsafe {
        libc::clock_gettime(id, time.as_mut_ptr());
        time.assume_init()
    };
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let nanoseconds = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
    nanoseconds
}

/// Sleeps for `seconds`, or until a signal arrives.
pub fn sleep(seconds: u32) {
    // SAFETY: sleep has no preconditions.
    unsafe { libc::sleep(seconds) };
}
