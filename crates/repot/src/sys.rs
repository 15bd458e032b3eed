//! Everything that needs `unsafe`: threads, a lock, and the system calls that rustix lacks.
//!
//! The library does without `std`, whose panic machinery alone is larger than the whole init. Threads come
//! from the C library, locks and events from the kernel's futex.
#![allow(unsafe_code)]

mod clock;
mod crew;
mod entry;
mod futex;
mod kernel_log;
mod lease;
mod loop_device;
mod memory;
mod process;
mod swap;
mod tally;
#[cfg(feature = "payload")]
mod zstd;

pub(crate) use clock::cpu_time;
pub use clock::{now, sleep};
pub(crate) use crew::crew;
pub use crew::{is_worker, worker_lost};
pub(crate) use futex::{Event, Mutex};
pub(crate) use kernel_log::kernel_log;
pub(crate) use lease::is_held;
pub(crate) use loop_device::loop_backing;
#[cfg(feature = "payload")]
pub(crate) use memory::Locked;
pub use memory::{Allocator, is_memory_short, is_torn};
pub(crate) use memory::{cached_pages, count_cached_pages, page_size, tear, wipe_freed, wipe_stack};
pub use process::Invocation;
pub(crate) use process::{cpus, descriptors, raise_descriptors, redirect, stream};
pub(crate) use swap::{swapoff, swapon};
#[cfg(feature = "payload")]
pub(crate) use zstd::Zstd;

use rustix::io::Errno;

/// The errno of the C library's last call. Valid only right after a call that failed.
fn last_error() -> Errno {
    // SAFETY: the C library's errno of this thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() }.max(1))
}
