//! The processes that run beside this one.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::site::{Site, number};
use crate::sys;

/// How long helpers of the kernel's are waited for, in nanoseconds.
pub(super) const PATIENCE: u64 = 1_000_000_000;

/// The other processes of user space, as `NAME[PID]`. Helpers that the kernel has started, modprobe above all, end by
/// themselves: they get `patience` nanoseconds for that. If /proc cannot be listed, there is one without a name.
pub(super) fn others(site: &Site, patience: u64) -> Vec<String> {
    let deadline = sys::now() + patience;
    loop {
        let Ok(others) = users(site) else { return Vec::from([String::from("unknown")]) };
        let left = deadline.saturating_sub(sys::now());
        let helper = others.iter().find(|pid| is_helper(site, **pid));
        if left == 0 || helper.is_none_or(|pid| !ends_within(*pid, left)) {
            return others.into_iter().map(|pid| named(site, pid)).collect();
        }
    }
}

/// `PF_KTHREAD`, include/linux/sched.h: a thread of the kernel. It has no program either, but nor has a helper between its
/// fork and its exec.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The processes of user space, this one aside.
fn users(site: &Site) -> Result<Vec<Pid>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = rustix::process::getpid();
    let mut users = Vec::new();
    for entry in openat(&site.proc, c".", flags, Mode::empty()).and_then(Dir::new)? {
        let entry = entry?;
        let number = entry.file_name().to_str().ok().and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else { continue };
        if pid != own && is_user(site, pid) {
            users.push(pid);
        }
    }
    Ok(users)
}

/// Whether a process has memory of its own, or will have. In doubt it has, unless it is gone.
fn is_user(site: &Site, pid: Pid) -> bool {
    match site.proc_file(&format!("{pid}/stat")) {
        Ok(stat) => {
            let fields = after_name(&stat);
            // A zombie holds nothing.
            !fields.starts_with(b"Z") && flags(fields).is_none_or(|flags| flags & KERNEL_THREAD == 0)
        }
        Err(fault) => !matches!(fault.errno, Errno::NOENT | Errno::SRCH),
    }
}

/// The fields of /proc/PID/stat behind the name, which is in parentheses and may contain anything (proc_pid_stat(5)).
fn after_name(stat: &[u8]) -> &[u8] {
    let end = stat.iter().rposition(|byte| *byte == b')').map_or(0, |at| at + 1);
    stat[end..].trim_ascii_start()
}

/// Field 9, the seventh behind the name.
fn flags(fields: &[u8]) -> Option<u64> {
    core::str::from_utf8(fields.split(|byte| *byte == b' ').nth(6)?).ok()?.parse().ok()
}

fn named(site: &Site, pid: Pid) -> String {
    let name = site.proc_file(&format!("{pid}/comm")).unwrap_or_default();
    format!("{}[{pid}]", name.trim_ascii().escape_ascii())
}

/// Whether a process was started by the kernel: by kthreadd, which is number 2, or by a thread of the kernel's, which kthreadd has
/// started (`call_usermodehelper_exec_work`).
fn is_helper(site: &Site, pid: Pid) -> bool {
    let parent = |pid: u64| {
        let status = site.proc_file(&format!("{pid}/status")).ok()?;
        number(&status, b"PPid:")
    };
    let first = u64::try_from(pid.as_raw_pid()).ok().and_then(parent);
    first == Some(2) || first.filter(|pid| *pid > 2).and_then(parent) == Some(2)
}

/// Waits for the end of a process; `false` where it does not come in so many nanoseconds.
fn ends_within(pid: Pid, nanoseconds: u64) -> bool {
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(error) => return error == Errno::SRCH,
    };
    let limit = i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec: limit / 1_000_000_000, tv_nsec: (limit % 1_000_000_000) as _ };
    poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)).is_ok_and(|ended| ended > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        let stat = b"77 (a) Z 1 (b) S 2 77 77 0 -1 2129984 0 0";
        assert_eq!(after_name(stat), b"S 2 77 77 0 -1 2129984 0 0");
        assert_eq!(flags(after_name(stat)), Some(2_129_984));
        assert_eq!(flags(after_name(b"")), None);
    }
}
