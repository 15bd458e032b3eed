//! Tries what a container engine does, in a child that is thrown away.

use repot_probe::sys::{in_child, unshare};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount};
use rustix::process::{chdir, fchdir};
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::io::Read;

/// What runc does to enter a container's root: bind-mount it on itself, pivot into it, unmount the old root.
pub(crate) fn pivot_root() -> String {
    in_child_told(|| {
        let named = |call: &'static str| move |error: rustix::io::Errno| format!("{call}: {error}");
        unshare(UnshareFlags::NEWNS).map_err(|error| format!("unshare(CLONE_NEWNS): {error}"))?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", slave).map_err(named("mount / rslave"))?;
        let root = some_directory()?;
        chdir("/").map_err(named("chdir /"))?;
        mount_bind_recursive(&root, &root).map_err(named("bind mount of the new root onto itself"))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let old = openat(CWD, "/", flags, Mode::empty()).map_err(named("open /"))?;
        let new = openat(CWD, &root, flags, Mode::empty()).map_err(named("open the new root"))?;
        fchdir(&new).map_err(named("fchdir to the new root"))?;
        rustix::process::pivot_root(".", ".").map_err(named("pivot_root(\".\", \".\")"))?;
        fchdir(&old).map_err(named("fchdir to the old root"))?;
        mount_change(".", slave).map_err(named("mount of the old root rslave"))?;
        unmount(".", UnmountFlags::DETACH).map_err(named("umount2 of the old root"))?;
        chdir("/").map_err(named("chdir /"))
    })
}

/// `unshare(CLONE_NEWUSER)`, which fails if the root of the process is not the root of a mount.
pub(crate) fn user_namespace() -> String {
    in_child_told(|| {
        unshare(UnshareFlags::NEWUSER).map_err(|error| format!("unshare(CLONE_NEWUSER): {error}"))
    })
}

/// The first directory of the root. Its access time is kept.
fn some_directory() -> Result<CString, String> {
    let named = |error: rustix::io::Errno| format!("read /: {error}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
    let root = openat(CWD, "/", flags, Mode::empty()).map_err(named)?;
    let items = Dir::new(root).map_err(named)?.filter_map(Result::ok);
    let directories = items.filter(|item| item.file_type() == FileType::Directory);
    let mut names: Vec<CString> = directories.map(|item| item.file_name().to_owned()).collect();
    names.retain(|name| !matches!(name.to_bytes(), b"." | b".."));
    names.sort();
    names.into_iter().next().ok_or_else(|| "no directory in / to pivot into".to_owned())
}

fn in_child_told(job: impl FnOnce() -> Result<(), String>) -> String {
    let told = || -> std::io::Result<String> {
        let (read, write) = rustix::pipe::pipe()?;
        in_child(|| {
            let text = job().err().unwrap_or_else(|| "ok".to_owned());
            i32::from(rustix::io::write(&write, text.as_bytes()).is_err())
        })?;
        drop(write);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text)?;
        Ok(text)
    };
    told().unwrap_or_else(|error| format!("no child: {error}"))
}
