//! What needs `unsafe`.
#![allow(unsafe_code)]

pub(crate) mod zstd;

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

/// Makes the kernel send SIGTERM to the command's process when this thread ends, however it ends. Without, a
/// guest would outlive a tool that was killed.
pub(crate) fn end_with_this_thread(command: &mut Command) {
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}
