//! The calls that rustix does not have or marks unsafe.
//!
//! The child of [`spawn`] is a copy of a process with many threads. Until it executes its program, it makes
//! only system calls on prepared data.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_long, c_ulong};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{CWD, Mode};
use rustix::io::{Errno, dup2, write};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::UnshareFlags;

pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES), "descriptors stay shared");
    // SAFETY: the only flag that makes this unsound is the one excluded above.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Keeps access times when reading through the detached mount `mount`.
pub(crate) fn set_noatime(mount: BorrowedFd<'_>) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_NOATIME,
        attr_clr: libc::MOUNT_ATTR__ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a string, and the kernel reads as many bytes of the structure as it has.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The data of the child of [`spawn`], prepared so that the child need not allocate.
pub(crate) struct Child<'a> {
    /// The detached mount that becomes its root.
    pub(crate) tree: BorrowedFd<'a>,
    /// A directory of the machine where the child mounts it briefly, in its own namespace.
    pub(crate) staging: CString,
    pub(crate) program: CString,
    pub(crate) argv: Vec<CString>,
    pub(crate) envp: Vec<CString>,
    /// The descriptors 0, 1 and 2.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Whether one more descriptor stays open.
    pub(crate) stray: bool,
    /// Whether descriptors 0, 1 and 2 are closed.
    pub(crate) closed: bool,
    /// Whether its root mount is shared. It can become so only once it is the root.
    pub(crate) shared: bool,
    /// A directory to which its root is changed by chroot.
    pub(crate) chroot: Option<CString>,
    /// The maximum number of open descriptors.
    pub(crate) nofile: Option<u64>,
    /// The maximum of memory that it may map, in bytes.
    pub(crate) memory: Option<u64>,
    /// The filter of intercepted calls. If empty, there is no listener.
    pub(crate) filter: Vec<libc::sock_filter>,
    /// Where the child writes the number of a failed step and its error.
    pub(crate) failed: BorrowedFd<'a>,
}

/// Starts a process as PID 1 of a new PID namespace, in a new mount namespace with `tree` as root.
pub(crate) fn spawn(child: &Child<'_>) -> io::Result<(Pid, OwnedFd)> {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&child.argv), pointers(&child.envp));
    let mut pidfd: c_int = -1;
    // The kernel's struct clone_args, first version: flags, pidfd, child_tid, parent_tid, exit_signal, stack,
    // stack_size, tls.
    let args: [u64; 8] = [
        (libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_PIDFD).cast_unsigned().into(),
        (&raw mut pidfd).addr() as u64,
        0,
        0,
        libc::SIGCHLD.cast_unsigned().into(),
        0,
        0,
        0,
    ];
    // SAFETY: without CLONE_VM this is fork(): the child has a copy of this memory and never returns from
    // `enter`.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let (step, error) = enter(child, &argv, &envp);
            let [a, b, c, d] = error.raw_os_error().to_ne_bytes();
            // SAFETY: in this copy of the process the number is nobody else's.
            let told =
                unsafe { BorrowedFd::borrow_raw(if step > 4 { TOLD_AT } else { child.failed.as_raw_fd() }) };
            let _ = write(told, &[step, a, b, c, d]);
            // SAFETY: ends the child without running what the parent registered for its own exit.
            unsafe { libc::_exit(127) }
        }
        _ => {
            let pid = c_int::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
            // SAFETY: the kernel stored a new descriptor there, which nobody else knows.
            Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

/// What the child writes instead of a step when it is about to execute its program and the listener exists.
pub(crate) const LISTENING: u8 = 0xff;

/// The descriptor that it writes this to, after closing all others.
pub(crate) const TOLD_AT: c_int = 700;

/// The additional open descriptor, if there is one.
pub(crate) const STRAY_AT: c_int = 710;

/// The names of the steps of [`enter`], by number.
pub(crate) const STEPS: [&str; 8] = [
    "prctl(PR_SET_PDEATHSIG)",
    "mount(propagation)",
    "move_mount",
    "pivot_root",
    "dup2",
    "setrlimit",
    "seccomp",
    "execve",
];

fn enter(child: &Child<'_>, argv: &[*const c_char], envp: &[*const c_char]) -> (u8, Errno) {
    macro_rules! step {
        ($number:literal, $call:expr) => {
            match $call {
                Ok(value) => value,
                Err(error) => return ($number, error),
            }
        };
    }
    step!(0, rustix::process::set_parent_process_death_signal(Some(Signal::KILL)));
    step!(1, mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC));
    let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    step!(2, move_mount(child.tree, c"", CWD, child.staging.as_c_str(), onto));
    step!(3, rustix::process::fchdir(child.tree));
    step!(3, rustix::process::pivot_root(c".", c"."));
    step!(3, unmount(c".", UnmountFlags::DETACH));
    step!(3, rustix::process::chdir(c"/"));
    if child.shared {
        step!(1, mount_change(c"/", MountPropagationFlags::SHARED));
    }
    if let Some(path) = &child.chroot {
        step!(3, rustix::process::chroot(path.as_c_str()));
        step!(3, rustix::process::chdir(c"/"));
    }
    for (number, from) in (0..).zip(&child.stdio) {
        step!(4, dup_to(*from, number));
    }
    step!(4, dup_to(child.failed, TOLD_AT));
    if child.stray {
        step!(4, dup_to(child.stdio[0], STRAY_AT));
    }
    // SAFETY: in this copy of the process the number is nobody else's.
    let told = unsafe { BorrowedFd::borrow_raw(TOLD_AT) };
    step!(4, rustix::io::fcntl_setfd(told, rustix::io::FdFlags::CLOEXEC));
    // Descriptors of the test, such as the listeners of other runs, must not leak into the sandbox.
    let kept = if child.stray { STRAY_AT } else { TOLD_AT };
    for (first, last) in [(3, TOLD_AT - 1), (TOLD_AT + 1, kept - 1), (kept + 1, c_int::MAX)] {
        // SAFETY: nothing in this copy of the process uses what it has open there any more.
        unsafe { libc::close_range(first.cast_unsigned(), last.cast_unsigned(), 0) };
    }
    if child.closed {
        // SAFETY: as above.
        unsafe { libc::close_range(0, 2, 0) };
    }
    // As the kernel starts PID 1.
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // All signals, including those that the C library reserves.
    let (default, none, size) = ([0_u64; 4], 0_u64, size_of::<u64>());
    // SAFETY: zeros are the default disposition and the empty set. Nothing in this copy relies on the
    // previous ones.
    unsafe {
        for signal in 1..=64 {
            let nowhere = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nowhere, size);
        }
        let nowhere = std::ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, nowhere, size);
    }
    if let Some(most) = child.nofile {
        let most = Rlimit { current: Some(most), maximum: Some(most) };
        step!(5, rustix::process::setrlimit(Resource::Nofile, most));
    }
    if let Some(most) = child.memory {
        // The limit can be raised again, see `intercept`.
        let most = Rlimit { current: Some(most), maximum: None };
        step!(5, rustix::process::setrlimit(Resource::As, most));
    }
    if !child.filter.is_empty() {
        step!(6, intercept(&child.filter));
        step!(6, write(told, &[LISTENING]));
    }
    // SAFETY: all three are NUL-terminated and live in this copy of the memory.
    unsafe { libc::execve(child.program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    (7, last())
}

fn dup_to(from: BorrowedFd<'_>, number: c_int) -> rustix::io::Result<()> {
    // SAFETY: in this copy of the process nothing else owns the descriptor. It stays open on purpose.
    let mut to = unsafe { OwnedFd::from_raw_fd(number) };
    let done = dup2(from, &mut to);
    std::mem::forget(to);
    done
}

/// Installs the filter. The test then takes the listener from this process's descriptors.
fn intercept(filter: &[libc::sock_filter]) -> rustix::io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len().try_into().expect("a short program"),
        filter: filter.as_ptr().cast_mut(),
    };
    let flags: c_ulong = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let mode: c_long = libc::SECCOMP_SET_MODE_FILTER.into();
    // SAFETY: the kernel reads as many instructions as the length says.
    let listener = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    if listener < 0 { Err(last()) } else { Ok(()) }
}

fn last() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The next call that waits for a decision. `None` if the caller has been killed.
pub(crate) fn next_call(listener: BorrowedFd<'_>) -> io::Result<Option<libc::seccomp_notif>> {
    // SAFETY: all zeros is a valid value of this structure, and what the kernel requires.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request and the structure belong together.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
    if done == 0 {
        return Ok(Some(call));
    }
    match last() {
        Errno::NOENT | Errno::INTR => Ok(None),
        error => Err(error.into()),
    }
}

/// The answer to a waiting call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    GoOn,
    Fail(Errno),
    Return(i64),
}

/// Answers a call with a duplicate of `descriptor`, a number of this process.
pub(crate) fn give(listener: BorrowedFd<'_>, id: u64, descriptor: i32) -> io::Result<()> {
    let request = libc::seccomp_notif_addfd {
        id,
        flags: u32::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).expect("one bit"),
        srcfd: descriptor.cast_unsigned(),
        newfd: 0,
        newfd_flags: libc::O_CLOEXEC.cast_unsigned(),
    };
    // SAFETY: the request and the structure belong together.
    let done =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const request) };
    // As below.
    if done >= 0 || last() == Errno::NOENT { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Answers a call.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let go_on = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).expect("one bit");
    let answer = libc::seccomp_notif_resp {
        id,
        val: if let Answer::Return(value) = answer { value } else { 0 },
        error: if let Answer::Fail(error) = answer { -error.raw_os_error() } else { 0 },
        flags: if let Answer::GoOn = answer { go_on } else { 0 },
    };
    // SAFETY: the request and the structure belong together.
    let done =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
    // ENOENT: the caller was killed while it waited.
    if done == 0 || last() == Errno::NOENT { Ok(()) } else { Err(io::Error::last_os_error()) }
}
