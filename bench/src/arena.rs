//! The place of one run: a fresh old root and a fresh tmpfs in a private mount namespace.

use super::sys;
use anyhow::{Context, Result, ensure};
use repot_harness::place;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use std::path::{Path, PathBuf};

/// Two file systems, mounted in this thread's own mount namespace.
pub(super) struct Arena {
    /// The old root.
    pub(super) old: PathBuf,
    /// The new root of movers that do not run as `/init`.
    pub(super) new: PathBuf,
}

/// Runs `work` in an arena, on a thread with its own mount namespace. The old root has type `kind`, the new
/// one has the mount options `options`.
///
/// The machine's mount table must be the same before and after.
pub(super) fn with_arena<T: Send>(
    kind: &str,
    options: &[(&str, &str)],
    work: impl FnOnce(&Arena) -> Result<T> + Send,
) -> Result<T> {
    let before = host_mounts()?;
    let (old, new) = (place::kept("bench/stage/old")?, place::kept("bench/stage/new")?);
    let arena = Arena { old, new };
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            sys::unshare_mounts().context("unshare(CLONE_NEWNS)")?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
                .context("mount / private")?;
            attach(kind, &[], &arena.old)?;
            attach("tmpfs", options, &arena.new)?;
            let result = work(&arena);
            // Here, because nobody waits for the very end of the thread, and the memory must be free before
            // the next run.
            for path in [&arena.new, &arena.old] {
                unmount(path, UnmountFlags::empty()).with_context(|| format!("umount {}", path.display()))?;
            }
            result
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    ensure!(host_mounts()? == before, "the mount table of this machine changed during the run");
    result
}

/// The machine's mount table, read through the first thread, which stays in the original namespace.
fn host_mounts() -> Result<String> {
    let path = format!("/proc/{}/mountinfo", std::process::id());
    std::fs::read_to_string(&path).context("cannot read this process's mountinfo")
}

fn attach(kind: &str, options: &[(&str, &str)], at: &Path) -> Result<()> {
    let made = || {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in [("mode", "0755")].iter().chain(options) {
            fsconfig_set_string(&context, *key, *value)?;
        }
        fsconfig_create(&context)?;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        move_mount(&mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    };
    made().with_context(|| format!("cannot mount a {kind} in a namespace of our own"))
}
