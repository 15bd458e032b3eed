//! Threads that live in a mount namespace of their own.
//!
//! A mount namespace belongs to a thread, not to a process, once the thread has stopped sharing its root and working
//! directory. So everything here runs on a thread made for the purpose and thrown away with its namespace: the mount
//! table of the machine, which the test's other threads see, is never touched.
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{MountPropagationFlags, OpenTreeFlags, mount_change, open_tree};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::{mounts, sys};

/// Runs `work` in a mount namespace that is a private copy of the machine's.
///
/// # Panics
/// Where `work` does, and where the caller is not allowed to make a namespace.
pub fn with_private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        sys::unshare(UnshareFlags::FS | UnshareFlags::NEWNS).expect("unshare(CLONE_NEWNS), are we root?");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .expect("/ made private");
        work()
    })
}

/// The root of process `pid` as that process sees it, alone: a detached copy of the one mount, which shows
/// what lies hidden under mount points and does not change access times.
///
/// # Errors
/// When the process is gone.
pub fn root_of(pid: Pid) -> io::Result<OwnedFd> {
    let raw = pid.as_raw_pid();
    let root = File::open(format!("/proc/{raw}/root"))?;
    inside(pid, move || view(root))
}

/// The same for the topmost mount at `path`, as the mount table has it, in the namespace of `pid`.
///
/// # Errors
/// When the process is gone or there is no such path.
pub fn mount_of(pid: Pid, path: &str) -> io::Result<OwnedFd> {
    let raw = pid.as_raw_pid();
    let root = File::open(format!("/proc/{raw}/root"))?;
    let path = mounts::path(path.trim_start_matches('/'));
    inside(pid, move || {
        let mount = open_tree(&root, path, OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        view(mount)
    })
}

/// A detached, non-recursive copy of the mount `at` is in, which does not change access times when read.
///
/// # Errors
/// When `at` is not in the mount namespace of the calling thread.
pub fn view(at: impl AsFd) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let view = open_tree(at, "", flags)?;
    sys::set_noatime(view.as_fd())?;
    Ok(view)
}

/// Runs `work` in the mount namespace of `pid`.
fn inside<T: Send>(pid: Pid, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(format!("/proc/{}/ns/mnt", pid.as_raw_pid()))?;
    on_a_thread(|| {
        sys::unshare(UnshareFlags::FS)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        work()
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// The mount table of the machine, for a test to compare before and after.
///
/// # Panics
/// Without `/proc`.
#[must_use]
pub fn host_mount_table() -> String {
    // Through the process, not the thread: its first thread never changes its namespace.
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", std::process::id()));
    table.expect("/proc/<pid>/mountinfo")
}
