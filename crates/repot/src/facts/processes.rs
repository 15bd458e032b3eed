//! Other processes, which may run from the root.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::metadata::{At, Meta};
use crate::site::{Site, number};
use crate::sys;

/// How long to wait for helpers of the kernel to exit, in nanoseconds.
pub(crate) const MAX_WAIT: u64 = 1_000_000_000;

/// The other processes of user space, as `NAME[PID]`. Helpers that the kernel has started, such as
/// modprobe(8), exit by themselves; they get up to `max_wait` nanoseconds. If /proc cannot be listed, there
/// is one that is unknown.
pub(crate) fn others(site: &Site, max_wait: u64) -> Vec<String> {
    newcomers(site, &[], max_wait)
}

/// As [`others`], without those in `known`.
pub(crate) fn newcomers(site: &Site, known: &[String], max_wait: u64) -> Vec<String> {
    let is_new = |pid: &Pid| {
        let number = format!("[{pid}]");
        !known.iter().any(|name| name.ends_with(&number))
    };
    let deadline = sys::now() + max_wait;
    loop {
        let Ok(mut others) = users(site) else { return Vec::from([String::from("unknown")]) };
        others.retain(is_new);
        let left = deadline.saturating_sub(sys::now());
        let helper = others.iter().find(|pid| is_helper(site, **pid));
        if left == 0 || helper.is_none_or(|pid| !ends_within(*pid, left)) {
            return others.into_iter().map(|pid| named(site, pid)).collect();
        }
    }
}

/// `PF_KTHREAD`, include/linux/sched.h. That a process has no program says less: a helper of the kernel has
/// none between its fork and its exec.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// The processes of user space, without this one.
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

/// The memory of the programs that `others` run, in bytes. The kernel refuses to truncate them (ETXTBSY), so
/// each is in memory twice while it moves.
pub(super) fn programs(site: &Site, others: &[String]) -> u64 {
    let size = |name: &String| {
        let pid = name.rsplit('[').next()?.strip_suffix(']')?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = openat(&site.proc, format!("{pid}/exe"), flags, Mode::empty()).ok()?;
        Some(Meta::read(At::Open(file.as_fd())).ok()?.allocated)
    };
    others.iter().filter_map(size).sum()
}

/// Whether a process is one of user space. In doubt it is, unless it has exited.
fn is_user(site: &Site, pid: Pid) -> bool {
    match site.proc_file(&format!("{pid}/stat")) {
        Ok(stat) => {
            let fields = after_name(&stat);
            // A zombie uses nothing.
            !fields.starts_with(b"Z") && flags(fields).is_none_or(|flags| flags & KERNEL_THREAD == 0)
        }
        Err(fault) => !matches!(fault.errno, Errno::NOENT | Errno::SRCH),
    }
}

/// The fields of /proc/PID/stat after the name, which is in parentheses and may contain any byte
/// (proc_pid_stat(5)).
fn after_name(stat: &[u8]) -> &[u8] {
    let end = stat.iter().rposition(|byte| *byte == b')').map_or(0, |at| at + 1);
    stat[end..].trim_ascii_start()
}

/// Field 9, the seventh after the name.
fn flags(fields: &[u8]) -> Option<u64> {
    core::str::from_utf8(fields.split(|byte| *byte == b' ').nth(6)?).ok()?.parse().ok()
}

fn named(site: &Site, pid: Pid) -> String {
    let name = site.proc_file(&format!("{pid}/comm")).unwrap_or_default();
    format!("{}[{pid}]", name.trim_ascii().escape_ascii())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_any_byte() {
        let stat = b"77 (a) Z 1 (b) S 2 77 77 0 -1 2129984 0 0";
        assert_eq!(after_name(stat), b"S 2 77 77 0 -1 2129984 0 0");
        assert_eq!(flags(after_name(stat)), Some(2_129_984));
        assert_eq!(flags(after_name(b"")), None);
    }
}
