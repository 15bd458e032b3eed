//! The parts that a program without the standard library defines itself: the entry point, the allocator and
//! the panic handler.
//!
//! This program has no standard library for two reasons: the panic machinery of `std` is larger than all of
//! it, and the start-up code of `std` aborts if /dev/null is missing, which is exactly the situation here.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use repot::log::{Level, Log};
use repot::runtime::{Allocator, Invocation, is_torn, is_worker, sleep, worker_lost};

use crate::process::Process;

/// The state for the panic handler.
static PROCESS: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());

#[cfg(freestanding)]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    panicked(info)
}

/// A bug must not end PID 1. A worker is given up and the move rolled back. On the main thread an init is
/// executed in place, if the root is complete.
fn panicked(info: &dyn core::fmt::Display) -> ! {
    let worker = is_worker();
    let pointer = if worker {
        PROCESS.load(Ordering::Relaxed)
    } else {
        PROCESS.swap(ptr::null_mut(), Ordering::Relaxed)
    };
    // SAFETY: null, or the pointer that `main` stored, which lives as long as the process. Its cells are not
    // written while other threads exist.
    let process = unsafe { pointer.as_ref() };
    let log = process.map_or_else(|| Log::open(true), Process::reopened_log);
    log.line(Level::Error, format_args!("bug in repot, or out of memory: {info}"));
    if worker {
        worker_lost();
    }
    match process {
        Some(process) if is_torn() => {
            log.line(Level::Error, format_args!("failed past the point of no return: the tree is split between the old root and the new one, so no init is executed"));
            crate::last::resort(&log, process)
        }
        Some(process) => crate::last::in_place(process),
        // A second panic, while the first was handled.
        None => loop {
            sleep(3600);
        },
    }
}

#[cfg(freestanding)]
repot::entry!(run);
#[cfg(not(freestanding))]
repot::entry_beside_std!(run);

fn run(invocation: Invocation) -> c_int {
    Allocator::set_aside();
    #[cfg(not(freestanding))]
    std::panic::set_hook(std::boxed::Box::new(|info| panicked(info)));
    let mut process = Process::new(invocation);
    PROCESS.store(&raw mut process, Ordering::Relaxed);
    crate::run(&process)
}
