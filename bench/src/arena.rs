//! Where one contender runs once: a fresh old root and a fresh tmpfs, seen by nobody else and gone afterwards.

use super::sys;
use anyhow::{Context, Result, ensure};
use repot_harness::place;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use std::path::{Path, PathBuf};

/// Two file systems, mounted in a namespace of this thread's own.
pub(super) struct Arena {
    /// The old root.
    pub(super) old: PathBuf,
    /// What movers that are not run as `/init` move to.
    pub(super) new: PathBuf,
}

/// Runs `work` on a thread with a mount namespace of its own, in an arena whose old root is a `kind` and whose new one has `options`.
///
/// The table of mounts that everybody else sees is compared before and after.
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
            // Here and not at the thread's end, which nobody waits for to the last: the memory is to be free again.
            for path in [&arena.new, &arena.old] {
                unmount(path, UnmountFlags::empty()).with_context(|| format!("umount {}", path.display()))?;
            }
            result
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    ensure!(host_mounts()? == before, "the mount table of this machine has changed meanwhile");
    result
}

/// What the machine's other programs see, through the first thread, which stays where it is.
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
