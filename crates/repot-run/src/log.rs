//! The log of this process: the kernel log, or standard error in a container.

use core::fmt::Arguments;
use core::sync::atomic::{AtomicBool, Ordering};

use repot::log::{Level, Log};
use rustix::fs::{CWD, readlinkat};
use rustix::io::Errno;

/// Whether this is the initial PID namespace, so that the kernel log is ours.
static MACHINE: AtomicBool = AtomicBool::new(false);

/// The number of the initial PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
const INITIAL: &[u8] = b"pid:[4026531836]";

/// Finds out where the log is. To be called once `/proc` is mounted; until then lines go to standard error.
pub(crate) fn open() {
    let machine = match readlinkat(CWD, c"/proc/self/ns/pid", alloc::vec::Vec::new()) {
        Ok(name) => name.to_bytes() == INITIAL,
        // A kernel without PID namespaces has only one.
        Err(errno) => errno == Errno::NOENT,
    };
    MACHINE.store(machine, Ordering::Relaxed);
}

/// Whether this is the initial PID namespace.
pub(crate) fn is_machine() -> bool {
    MACHINE.load(Ordering::Relaxed)
}

pub(crate) fn error(text: Arguments<'_>) {
    line(Level::Error, text);
}

pub(crate) fn warn(text: Arguments<'_>) {
    line(Level::Warning, text);
}

pub(crate) fn info(text: Arguments<'_>) {
    line(Level::Info, text);
}

/// The log is opened for each line: there are few, and a program that runs for years keeps nothing open.
fn line(level: Level, text: Arguments<'_>) {
    Log::open(is_machine()).line(level, text);
}
