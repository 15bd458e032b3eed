//! The classic mover as the `/init` of a virtual machine: it copies the tree to a tmpfs on `/mnt` and
//! executes the real init.

use crate::{Done, classic};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MoveMountFlags, mount, move_mount};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

pub(crate) fn boot() -> Done {
    mount("tmpfs", "/mnt", "tmpfs", MountFlags::empty(), None)?;
    classic::relocate(Path::new("/"), Path::new("/mnt"))?;
    rustix::process::chdir("/mnt")?;
    move_mount(CWD, ".", CWD, "/", MoveMountFlags::empty())?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Err(Command::new("/sbin/init").exec().into())
}
