//! Starts a contender as PID 1 with its own root.
//!
//! The child is a copy of a process with several threads. Until it executes its program, it makes only system
//! calls on prepared data.
#![allow(unsafe_code)]

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::{CString, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Gives the calling thread its own mount namespace.
pub(super) fn unshare_mounts() -> io::Result<()> {
    // SAFETY: descriptors stay shared. Only working directory and mounts become the thread's own.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }?)
}

/// A contender that starts as PID 1.
pub(super) struct Launch<'a> {
    /// The mount point, in the caller's namespace, that becomes its root.
    pub(super) root: &'a CString,
    pub(super) program: &'a CString,
    /// The descriptors 0, 1 and 2. The child writes the start time to 1.
    pub(super) stdio: [BorrowedFd<'a>; 3],
    /// Whether the stand-in for the real init exits as soon as it runs.
    pub(super) only: bool,
    /// The child waits until the other end of this pipe is closed.
    pub(super) go: BorrowedFd<'a>,
}

/// Starts it in new PID and mount namespaces. It executes the program when `go` is closed.
pub(super) fn spawn(launch: &Launch<'_>) -> io::Result<(Pid, OwnedFd)> {
    let argv = [launch.program.as_ptr(), std::ptr::null()];
    let only = if launch.only { c"BENCH=only".as_ptr() } else { std::ptr::null() };
    let envp = [c"HOME=/".as_ptr(), c"TERM=linux".as_ptr(), only, std::ptr::null()];
    let mut pidfd: c_int = -1;
    // The kernel's struct clone_args, first version: flags, pidfd, child_tid, parent_tid, exit_signal, stack,
    // stack_size, tls.
    let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_PIDFD;
    let signal = u64::from(libc::SIGCHLD.cast_unsigned());
    let args: [u64; 8] =
        [flags.cast_unsigned().into(), (&raw mut pidfd).addr() as u64, 0, 0, signal, 0, 0, 0];
    // SAFETY: without CLONE_VM this is fork(): the child has a copy of this memory and never returns from
    // `enter`.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let _ = enter(launch, &argv, &envp);
            // SAFETY: ends the child without running what the parent registered for its own exit.
            unsafe { libc::_exit(127) }
        }
        _ => {
            let pid = c_int::try_from(pid).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::other("clone3 gave no pid"))?;
            // SAFETY: the kernel stored a new descriptor there, which nobody else knows.
            Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

fn enter(launch: &Launch<'_>, argv: &[*const c_char], envp: &[*const c_char]) -> rustix::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, launch.root, flags, Mode::empty())?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    // The parent closes its end to start the program, so this copy of that end must be closed.
    const GO: c_int = 3;
    for (number, from) in (0..).zip(&launch.stdio).chain([(GO, &launch.go)]) {
        // SAFETY: in this copy of the process nobody else uses these numbers.
        if unsafe { libc::dup2(from.as_raw_fd(), number) } < 0 {
            return Err(rustix::io::Errno::BADF);
        }
    }
    // SAFETY: nothing in this copy of the process uses what it has open there any more.
    unsafe { libc::close_range((GO + 1).cast_unsigned(), u32::MAX, 0) };
    std::mem::forget(root);
    rustix::process::setsid()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let mut byte = 0u8;
    // SAFETY: at most one byte is read. The descriptor is the pipe's and is closed afterwards.
    unsafe {
        libc::read(GO, (&raw mut byte).cast(), 1);
        libc::close(GO);
    }
    tell_start();
    // SAFETY: all strings end with a zero byte, both lists with a null, and all live in this copy of the
    // memory.
    unsafe { libc::execve(launch.program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Err(rustix::io::Errno::NOEXEC)
}

/// Writes `bench start CLOCK CPU` in the format of the guest program, without allocating.
fn tell_start() {
    let mut line = *b"bench start 00000000000000000000 00000000000000000000\n";
    let digits = |place: &mut [u8], time: rustix::time::Timespec| {
        let mut left = time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned();
        for digit in place.iter_mut().rev() {
            *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
            left /= 10;
        }
    };
    digits(&mut line[12..32], clock_gettime(ClockId::Monotonic));
    digits(&mut line[33..53], clock_gettime(ClockId::ProcessCPUTime));
    // SAFETY: descriptor 1 was put in place by `enter`.
    let _ = rustix::io::write(unsafe { BorrowedFd::borrow_raw(1) }, &line);
}

/// Nanoseconds of CPU time of children that have exited.
pub(super) fn children() -> u64 {
    // SAFETY: all zeros is a value of this structure, and the kernel fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    [usage.ru_utime, usage.ru_stime]
        .map(|time| time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_usec.cast_unsigned() * 1000)
        .iter()
        .sum()
}
