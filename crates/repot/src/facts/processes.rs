//! Other processes that run from the root.

use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Dir, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::site::{Site, number};
use crate::sys;

/// How long to wait for helpers of the kernel to exit, in nanoseconds.
pub(super) const MAX_WAIT: u64 = 1_000_000_000;

/// Counts the other processes that have a program, which kernel threads have not. Helpers that the kernel has
/// started, such as modprobe(8), exit by themselves; they get up to `max_wait` nanoseconds.
pub(super) fn others(site: &Site, max_wait: u64) -> u32 {
    let deadline = sys::now() + max_wait;
    loop {
        let others = programs(site);
        let left = deadline.saturating_sub(sys::now());
        let helper = others.iter().find(|pid| is_helper(site, **pid));
        if left == 0 || helper.is_none_or(|pid| !ends_within(*pid, left)) {
            return u32::try_from(others.len()).unwrap_or(u32::MAX);
        }
    }
}

/// The processes that have a program, without this one.
fn programs(site: &Site) -> Vec<Pid> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(list) = openat(&site.proc, c".", flags, Mode::empty()).and_then(Dir::new) else {
        return Vec::new();
    };
    let own = rustix::process::getpid();
    let number = |name: &CStr| Pid::from_raw(name.to_str().ok()?.parse().ok()?);
    let runs = |pid: &Pid| readlinkat(&site.proc, format!("{pid}/exe"), Vec::new()).is_ok();
    let numbers = list.filter_map(Result::ok).filter_map(|entry| number(entry.file_name()));
    numbers.filter(|pid| *pid != own).filter(runs).collect()
}

/// Whether the kernel has started a process: its parent is kthreadd, which is PID 2, or a kernel thread,
/// which is a child of kthreadd (`call_usermodehelper_exec_work`).
fn is_helper(site: &Site, pid: Pid) -> bool {
    let parent = |pid: u64| {
        let status = site.proc_file(&format!("{pid}/status")).ok()?;
        number(&status, b"PPid:")
    };
    let first = u64::try_from(pid.as_raw_pid()).ok().and_then(parent);
    first == Some(2) || first.filter(|pid| *pid > 2).and_then(parent) == Some(2)
}

/// Waits until a process has exited. Returns false after `nanoseconds`.
fn ends_within(pid: Pid, nanoseconds: u64) -> bool {
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(error) => return error == Errno::SRCH,
    };
    let limit = i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec: limit / 1_000_000_000, tv_nsec: (limit % 1_000_000_000) as _ };
    poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)).is_ok_and(|ended| ended > 0)
}
