//! What a program without the standard library defines for itself: entry, allocator, panic.
//!
//! There is no standard library because its panic machinery alone is larger than this whole program, and because its start-up
//! aborts when /dev/null is missing, which is the situation this program is made for.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use repot::report::{Level, Log};
use repot::sys::Invocation;

struct Malloc;

// SAFETY: malloc and posix_memalign give what GlobalAlloc asks for, and free takes back both.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let try_once = || {
            if layout.align() <= size_of::<usize>() * 2 {
                // SAFETY: any size is a valid argument.
                return unsafe { libc::malloc(layout.size()) };
            }
            let mut place: *mut c_void = ptr::null_mut();
            // SAFETY: an alignment is a power of two, and larger than a pointer here.
            match unsafe { libc::posix_memalign(&raw mut place, layout.align(), layout.size()) } {
                0 => place,
                _ => ptr::null_mut(),
            }
        };
        // The caller cannot go on without, so a refusal is worth a second question.
        let place = try_once();
        if place.is_null() { try_once().cast() } else { place.cast() }
    }

    unsafe fn dealloc(&self, place: *mut u8, _: Layout) {
        // SAFETY: `place` came from `alloc`.
        unsafe { libc::free(place.cast()) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= size_of::<usize>() * 2 {
            // SAFETY: `place` came from malloc.
            let grown = unsafe { libc::realloc(place.cast(), size) };
            if !grown.is_null() {
                return grown.cast();
            }
        }
        // SAFETY: the layout with another size is valid by the contract of `realloc`.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both blocks have that many bytes and do not overlap; the old one is given back once.
            unsafe {
                ptr::copy_nonoverlapping(place, new, layout.size().min(size));
                self.dealloc(place, layout);
            }
        }
        new
    }
}

#[global_allocator]
static MALLOC: Malloc = Malloc;

/// Whether the kernel's log is this machine's own, for the panic handler.
pub(crate) static MACHINE: AtomicBool = AtomicBool::new(true);
/// What `main` was called with, for the panic handler.
static INVOCATION: AtomicPtr<Invocation> = AtomicPtr::new(ptr::null_mut());

/// A bug of ours must not end process 1: a worker is given up, and the move undone; elsewhere an init is executed in place.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let log = Log::open(MACHINE.load(Ordering::Relaxed));
    log.line(Level::Error, format_args!("this is a bug of repot: {info}"));
    if !repot::sys::on_main_thread() {
        repot::sys::worker_lost();
    }
    // SAFETY: null, or what `main` put there, which lives as long as the process.
    match unsafe { INVOCATION.swap(ptr::null_mut(), Ordering::Relaxed).as_ref() } {
        Some(invocation) => crate::last::in_place(&log, invocation),
        // A second one, while the first was dealt with.
        None => loop {
            repot::sys::sleep(3600);
        },
    }
}

// The prebuilt `alloc` refers to both, although nothing here unwinds: a panic never returns.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    loop {
        repot::sys::sleep(3600);
    }
}

#[link(name = "c")]
unsafe extern "C" {}
// glibc's own streams refer to the unwinder.
#[cfg(target_env = "gnu")]
#[link(name = "gcc_eh")]
unsafe extern "C" {}

#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
    // SAFETY: the C library gives what the kernel gave: arrays that end with a null pointer and stay.
    let mut invocation = unsafe { Invocation::of_main(argv, envp) };
    INVOCATION.store(&raw mut invocation, Ordering::Relaxed);
    crate::run(&invocation)
}
