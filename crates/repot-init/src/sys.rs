//! What a program without the standard library defines for itself: entry, allocator, panic.
//!
//! There is no standard library because its panic machinery alone is larger than this whole program, and because its start-up
//! aborts when /dev/null is missing, which is the situation this program is made for.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use repot::options::OnError;
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
        let place = try_once();
        if !place.is_null() {
            return place.cast();
        }
        // The caller cannot go on without: what it is at comes to its end with what was set aside, and then all is undone.
        repot::sys::memory_is_short();
        // SAFETY: null, or what `main` had from malloc; nobody else gets it.
        unsafe { libc::free(RESERVE.swap(ptr::null_mut(), Ordering::Relaxed)) };
        try_once().cast()
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

/// Set aside for when there is no memory. It is never written to, so that it takes none until then.
static RESERVE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// More than one thread of a walk ever has.
const RESERVE_SIZE: usize = 512 * 1024;

/// What has to be known wherever this program is given up.
pub(crate) struct Process {
    /// What `main` was called with.
    pub(crate) invocation: Invocation,
    /// Whether the kernel's log is this machine's own.
    pub(crate) machine: Cell<bool>,
    /// `onerror=`
    pub(crate) onerror: Cell<OnError>,
    /// `panic=`
    pub(crate) panic: Cell<i32>,
}

/// For the panic handler.
static PROCESS: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());

/// A bug of ours must not end process 1: a worker is given up, and the move undone; elsewhere an init is executed in place, if
/// the root is whole.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let worker = !repot::sys::on_main_thread();
    let place = if worker {
        PROCESS.load(Ordering::Relaxed)
    } else {
        PROCESS.swap(ptr::null_mut(), Ordering::Relaxed)
    };
    // SAFETY: null, or what `main` put there, which lives as long as the process. Its cells are not written to while there are
    // other threads.
    let process = unsafe { place.as_ref() };
    let log = Log::open(process.is_none_or(|process| process.machine.get()));
    log.line(Level::Error, format_args!("this is a bug of repot, or the memory is at its end: {info}"));
    if worker {
        repot::sys::worker_lost();
    }
    match process {
        Some(process) if repot::sys::is_torn() => {
            log.line(Level::Error, format_args!("the root is in two halves, of which none is executed"));
            crate::last::resort(&log, process)
        }
        Some(process) => crate::last::in_place(process),
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
extern "C" fn main(_argc: c_int, argv: *mut *const c_char, envp: *const *const c_char) -> c_int {
    // SAFETY: the C library gives what the kernel gave: arrays that end with a null pointer, stay, and belong to the program.
    let invocation = unsafe { Invocation::of_main(argv, envp) };
    let (machine, onerror) = (Cell::new(true), Cell::new(OnError::Continue));
    let mut process = Process { invocation, machine, onerror, panic: Cell::new(0) };
    PROCESS.store(&raw mut process, Ordering::Relaxed);
    // SAFETY: any size is a valid argument, and null will do.
    let reserve = unsafe { libc::malloc(RESERVE_SIZE) };
    RESERVE.store(reserve, Ordering::Relaxed);
    if reserve.is_null() {
        repot::sys::memory_is_short();
    }
    crate::run(&process)
}
