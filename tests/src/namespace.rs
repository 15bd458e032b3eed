//! Threads with their own mount namespace.
//!
//! A thread that no longer shares its root and working directory can have its own mount namespace. So
//! everything here runs on a new thread, which ends together with its namespace. The mount table of the
//! machine, which all other threads see, never changes.
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{MountPropagationFlags, OpenTreeFlags, mount_change, open_tree};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::{mounts, sys};

/// Runs `work` in a private copy of the machine's mount namespace.
///
/// # Panics
/// If `work` panics, or the caller may not create a namespace.
pub fn with_private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        sys::unshare(UnshareFlags::FS | UnshareFlags::NEWNS).expect("unshare(CLONE_NEWNS), are we root?");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .expect("/ made private");
        work()
    })
}

/// The root of process `pid` as that process sees it: a detached copy of this one mount, without the mounts
/// on top. Reading it does not change access times.
///
/// # Errors
/// If the process is gone.
pub fn root_of(pid: Pid) -> io::Result<OwnedFd> {
    let raw = pid.as_raw_pid();
    let root = File::open(format!("/proc/{raw}/root"))?;
    inside(pid, move || view(root))
}

/// The same for the topmost mount at `path`, as in the mount table, in the namespace of `pid`.
///
/// # Errors
/// If the process or the path does not exist.
pub fn mount_of(pid: Pid, path: &str) -> io::Result<OwnedFd> {
    let raw = pid.as_raw_pid();
    let root = File::open(format!("/proc/{raw}/root"))?;
    let path = mounts::path(path.trim_start_matches('/'));
    inside(pid, move || {
        let mount = open_tree(&root, path, OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        view(mount)
    })
}

/// A detached, non-recursive copy of the mount that has `at`. Reading it does not change access times.
///
/// # Errors
/// If `at` is not in the mount namespace of the calling thread.
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

/// The machine's mount table, for a comparison before and after.
///
/// # Panics
/// If `/proc` is missing.
#[must_use]
pub fn host_mount_table() -> String {
    // Of the process, not of the thread: the first thread never changes its namespace.
    let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", std::process::id()));
    table.expect("/proc/<pid>/mountinfo")
}
