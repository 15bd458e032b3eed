//! Everything that needs `unsafe`: the entry point and the panic handler, fork, signals
//! and a few system calls that rustix lacks.
#![allow(unsafe_code)]

pub(crate) mod interface;

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char};
use core::ptr;
use core::time::Duration;

use repot::runtime::sleep;
use rustix::fd::{BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::{Errno, read, write};
use rustix::process::Pid;

use crate::child::Outcome;

#[cfg(freestanding)]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    panicked(info)
}

/// A bug must not end PID 1: the program goes on without a supervisor.
fn panicked(info: &dyn core::fmt::Display) -> ! {
    crate::log::error(format_args!("bug in repot-run, or out of memory: {info}"));
    loop {
        sleep(3600);
    }
}

#[cfg(freestanding)]
repot::entry!(|invocation| crate::run(&invocation));
#[cfg(not(freestanding))]
repot::entry_beside_std!(|invocation| {
    std::panic::set_hook(std::boxed::Box::new(|info| panicked(info)));
    crate::run(&invocation)
});

pub(crate) const SIGCHLD: i32 = libc::SIGCHLD;
pub(crate) const SIGCONT: i32 = libc::SIGCONT;
pub(crate) const SIGINT: i32 = libc::SIGINT;
pub(crate) const SIGKILL: i32 = libc::SIGKILL;
pub(crate) const SIGPWR: i32 = libc::SIGPWR;
pub(crate) const SIGTERM: i32 = libc::SIGTERM;

/// The errno of the C library's last call.
fn last_error() -> Errno {
    // SAFETY: the C library's errno of this thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() }.max(1))
}

/// Every signal, also those that sigfillset leaves out for the threads of the C library: musl keeps 34, which
/// is `SIGRTMIN` for other programs. This program has one thread.
fn all_signals() -> libc::sigset_t {
    // SAFETY: a set is an array of bits, and all of them may be set.
    unsafe {
        let mut set = core::mem::MaybeUninit::<libc::sigset_t>::uninit();
        set.as_mut_ptr().write_bytes(0xff, 1);
        set.assume_init()
    }
}

/// Blocks every signal. The kernel keeps blocked signals even for PID 1, which it protects from all others.
pub(crate) fn block_signals() {
    let all = all_signals();
    // SAFETY: a valid set, and the default handler.
    unsafe {
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
        // Whoever executed this program may have ignored it. Then the kernel reaps the children itself, and
        // nobody learns their exit codes (wait(2)).
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

/// Gives a child the signal mask and the handlers that a program expects.
pub(crate) fn unblock_signals() {
    // SAFETY: default handlers and an empty set, which is all zeros.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let none: libc::sigset_t = core::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Waits for a signal, at most for `timeout`. Returns `None` if none came.
pub(crate) fn next_signal(timeout: Option<Duration>) -> Option<i32> {
    let set = all_signals();
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().min(1 << 30) as _,
        tv_nsec: timeout.subsec_nanos() as _,
    });
    loop {
        let time = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: a valid set, a null pointer or a valid time, and no information asked for.
        let signal = unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), time) };
        if signal > 0 {
            return Some(signal);
        }
        if last_error() != Errno::INTR {
            return None;
        }
    }
}

/// The time since boot.
pub(crate) fn clock() -> Duration {
    Duration::from_nanos(repot::runtime::now())
}

/// Sends a signal to one process.
pub(crate) fn send(pid: Pid, signal: i32) {
    // SAFETY: kill on plain numbers.
    unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
}

/// Sends a signal to every process but this one.
pub(crate) fn send_all(signal: i32) {
    // SAFETY: kill on plain numbers. -1 leaves out PID 1 and, in PID 1, the caller.
    unsafe { libc::kill(-1, signal) };
}

/// Reaps one child that has ended, if there is one.
pub(crate) fn reap() -> Option<(Pid, Outcome)> {
    let mut status = 0;
    // SAFETY: `status` is valid for a write.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let outcome = if libc::WIFSIGNALED(status) {
        Outcome::Killed(libc::WTERMSIG(status))
    } else {
        Outcome::Exited(libc::WEXITSTATUS(status))
    };
    Some((Pid::from_raw(pid.max(0))?, outcome))
}

/// Reaps all children that have ended. Returns whether no child is left.
pub(crate) fn reap_all() -> bool {
    while reap().is_some() {}
    // SAFETY: no status is asked for. Fails with ECHILD if there is no child at all.
    unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) < 0 && last_error() == Errno::CHILD }
}

/// Waits until this child has ended.
pub(crate) fn wait_for(pid: Pid) {
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(pid.as_raw_nonzero().get(), ptr::null_mut(), 0) } < 0
        && last_error() == Errno::INTR
    {}
}

/// Starts a process that calls `child`, which returns only if it failed.
pub(crate) fn fork(child: &dyn Fn()) -> Result<Pid, Errno> {
    // SAFETY: this program has one thread, so the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        0 => {
            child();
            exit(127)
        }
        pid => Pid::from_raw(pid.max(0)).ok_or_else(last_error),
    }
}

/// The standard streams. If one is closed, calls on it fail with EBADF.
pub(crate) fn streams() -> [BorrowedFd<'static>; 3] {
    // SAFETY: nothing in this program closes 0, 1 or 2.
    unsafe { [0, 1, 2].map(|number| BorrowedFd::borrow_raw(number)) }
}

/// Ends this process at once.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// Executes a program. Returns only if that fails.
pub(crate) fn execve(path: &CStr, args: &[CString], env: &[&CStr]) -> Errno {
    let args: Vec<*const c_char> = args.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    let env: Vec<*const c_char> = env.iter().map(|variable| variable.as_ptr()).chain([ptr::null()]).collect();
    // SAFETY: both arrays end with a null pointer and live until the call returns.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    last_error()
}

/// Tells the parent which call failed.
pub(crate) fn report(pipe: BorrowedFd<'_>, call: usize, errno: Errno) {
    let mut message = [0; 8];
    message[..4].copy_from_slice(&u32::try_from(call).unwrap_or(0).to_le_bytes());
    message[4..].copy_from_slice(&errno.raw_os_error().to_le_bytes());
    let _ = write(pipe, &message);
}

/// What the child reported, once it has closed the pipe; `None` if it became the program.
pub(crate) fn reported(pipe: BorrowedFd<'_>) -> Option<(usize, Errno)> {
    let mut message = [0; 8];
    loop {
        match read(pipe, &mut message) {
            Err(Errno::INTR) => {}
            Ok(8) => {
                let number = |at: usize| i32::from_le_bytes([0, 1, 2, 3].map(|byte| message[at + byte]));
                return Some((usize::try_from(number(0)).ok()?, Errno::from_raw_os_error(number(4).max(1))));
            }
            _ => return None,
        }
    }
}

/// Connects to a vsock port of the host (vsock(7)).
#[allow(clippy::cast_possible_truncation)] // A small constant and a small size.
pub(crate) fn vsock(port: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: an address of zeros is valid, and its size is the one that is passed.
    unsafe {
        let socket = libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(last_error());
        }
        let owned = OwnedFd::from_raw_fd(socket);
        let mut address: libc::sockaddr_vm = core::mem::zeroed();
        address.svm_family = libc::AF_VSOCK as _;
        address.svm_cid = libc::VMADDR_CID_HOST;
        address.svm_port = port;
        let size = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        if libc::connect(socket, (&raw const address).cast(), size) < 0 {
            return Err(last_error());
        }
        Ok(owned)
    }
}

/// Writes a byte to an I/O port (ioperm(2)). /dev/port would do without assembler, but distributions leave it
/// out of their kernels.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub(crate) fn write_port(port: u16, byte: u8) -> Result<(), Errno> {
    // SAFETY: permission for one port. What is behind it was named by whoever configured this machine.
    unsafe {
        if libc::ioperm(port.into(), 1, 1) < 0 {
            return Err(last_error());
        }
        core::arch::asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack, preserves_flags));
    }
    Ok(())
}

/// This architecture has no I/O ports.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
pub(crate) fn write_port(_: u16, _: u8) -> Result<(), Errno> {
    Err(Errno::NODEV)
}
