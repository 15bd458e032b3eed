//! What a program without the standard library has to define for itself: entry, allocator, panic.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{c_char, c_int};

struct Malloc;

// SAFETY: malloc and posix_memalign give what GlobalAlloc asks for; free takes back both.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size is a valid argument.
        unsafe { libc::malloc(layout.size()).cast() }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, _: Layout) {
        // SAFETY: `ptr` came from `alloc` above.
        unsafe { libc::free(ptr.cast()) }
    }
}

#[global_allocator]
static MALLOC: Malloc = Malloc;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The prebuilt `alloc` refers to it although nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[link(name = "c")]
unsafe extern "C" {}
#[cfg_attr(target_env = "musl", link(name = "unwind"))]
#[cfg_attr(target_env = "gnu", link(name = "gcc_eh"))]
unsafe extern "C" {}

#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    0
}
