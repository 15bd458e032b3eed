//! Where mounts wait while the tree moves: a small tmpfs, attached above the new root. It is private. On a
//! shared mount they would propagate to its peers.

use alloc::ffi::CString;
use alloc::format;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};
use rustix::mount::{MoveMountFlags, move_mount};

use super::detach;
use crate::error::{Call, Fault};
use crate::site::{PATH, detached};

#[derive(Debug)]
pub(super) struct Park {
    mount: OwnedFd,
    dir: OwnedFd,
    /// The number of places.
    places: usize,
}

impl Park {
    pub(super) fn new() -> Result<Park, Fault> {
        let mount = detached("tmpfs")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&mount, c".", flags, Mode::empty()).on("openat", b"tmpfs")?;
        attach(&mount)?;
        Ok(Park { mount, dir, places: 0 })
    }

    /// Makes a place for a mount of a file or of a directory, and returns its number.
    pub(super) fn place(&mut self, file: bool) -> Result<usize, Fault> {
        let name = name(self.places);
        if file {
            mknodat(&self.dir, &name, FileType::RegularFile, Mode::RUSR, 0).on("mknodat", name.to_bytes())?;
        } else {
            mkdirat(&self.dir, &name, Mode::RWXU).on("mkdirat", name.to_bytes())?;
        }
        self.places += 1;
        Ok(self.places - 1)
    }

    /// Opens a place, or the mount there.
    pub(super) fn open(&self, number: usize) -> Result<OwnedFd, Fault> {
        let name = name(number);
        openat(&self.dir, &name, PATH, Mode::empty()).on("openat", name.to_bytes())
    }

    /// Unmounts it, with whatever is still in it.
    pub(super) fn close(&self) -> Result<(), Fault> {
        detach(&self.mount, b"/")
    }
}

fn name(number: usize) -> CString {
    CString::new(format!("{number}")).unwrap_or_default()
}

/// Attaches a mount above everything that is mounted on `/`.
pub(super) fn attach(mount: &OwnedFd) -> Result<(), Fault> {
    move_mount(mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).on("move_mount", b"/")
}
