//! Attaches the new root above the old one and moves the mounts from one to the other.
//!
//! Only mounts directly on the old root are moved: each takes along what is mounted on it. By path one reaches only the
//! topmost of several mounts on one place, and nothing that another mount hides. So all are first taken off, the outer before
//! the inner and the upper before the lower, and parked on the new root's own root, one above the other; from there they are
//! put in place in the opposite order.

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, unlinkat, utimensat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};
use rustix::process::fchdir;

use crate::error::{Call, Error, Fault, Step};
use crate::facts::Facts;
use crate::metadata::{At, Meta};
use crate::mountinfo::Mount;
use crate::relocate::Relocated;
use crate::sweep::sweep;

/// The mounts are on the new root, which is attached above the old one.
#[derive(Debug)]
pub struct Carried<'s> {
    pub(crate) relocated: Relocated<'s>,
    pub(crate) shared: bool,
    places: Places,
    /// How many mounts were moved, those on them not counted.
    pub mounts: usize,
    /// Why the old root is not empty, where it is not.
    pub left: Option<Fault>,
}

/// Carries the mounts.
///
/// # Errors
/// The call that failed; mounts and tree are then back where they were.
pub fn carry<'s>(relocated: Relocated<'s>, facts: &Facts) -> Result<Carried<'s>, Error> {
    let mut places = Places { parked: Vec::new(), placed: Vec::new(), attached: false, private: false };
    match places.carry(&relocated, facts) {
        Ok(()) => {
            let kept = relocated.kept();
            let left = if kept { sweep(&relocated.new.site.old).err() } else { None };
            let mounts = places.placed.len();
            Ok(Carried { relocated, shared: facts.shared, places, mounts, left })
        }
        Err(fault) => Err(undo(places, relocated, facts.shared, fault.at(Step::Carry))),
    }
}

impl Carried<'_> {
    /// Puts everything back after `error`.
    pub(crate) fn back(self, error: Error) -> Error {
        undo(self.places, self.relocated, self.shared, error)
    }
}

fn undo(mut places: Places, relocated: Relocated<'_>, shared: bool, mut error: Error) -> Error {
    error.torn |= places.back(&relocated, shared).is_err();
    error.torn |= relocated.back().is_err();
    error
}

/// A mount that was taken off its place.
#[derive(Debug)]
struct Taken {
    mount: OwnedFd,
    point: Vec<u8>,
    file: bool,
}

/// Where all mounts are.
#[derive(Debug)]
struct Places {
    parked: Vec<Taken>,
    placed: Vec<Taken>,
    /// Whether the new root is attached.
    attached: bool,
    /// Whether the old root was made private.
    private: bool,
}

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Places {
    fn carry(&mut self, relocated: &Relocated<'_>, facts: &Facts) -> Result<(), Fault> {
        let new = &relocated.new;
        if facts.shared {
            // The kernel moves no mount away from a shared one (do_move_mount).
            mount_change("/", MountPropagationFlags::PRIVATE).on("mount", b"/")?;
            self.private = true;
        }
        // The path must be "/": it leads to the topmost mount there, which a descriptor of the old root does not.
        move_mount(&new.mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .on("move_mount", b"/")?;
        self.attached = true;
        let mut children: Vec<&Mount> = facts
            .mounts
            .iter()
            .filter(|mount| {
                mount.parent == facts.root_mount && mount.id != facts.root_mount && mount.point != b"/"
            })
            .collect();
        children.sort_by_key(|mount| mount.point.len());
        let mut park = Park { dir: new.dir.as_fd(), file: None };
        let carried = self.take_off(&children, facts, new.site.root.as_fd(), &mut park).and_then(|()| {
            while let Some(taken) = self.parked.pop() {
                let put = find(new.dir.as_fd(), &taken.point)
                    .and_then(|place| shift(&taken.mount, place.as_fd(), &taken.point));
                match put {
                    Ok(()) => self.placed.push(taken),
                    Err(fault) => {
                        self.parked.push(taken);
                        return Err(fault);
                    }
                }
            }
            Ok(())
        });
        if carried.is_err() {
            // What was put in place goes back to the park, from where `back` takes it.
            while let Some(taken) = self.placed.pop() {
                let _ = park.place(taken.file).and_then(|place| shift(&taken.mount, place, &taken.point));
                self.parked.push(taken);
            }
            let _ = self.put_back(new.site.root.as_fd());
        }
        park.close(relocated);
        carried
    }

    fn take_off(
        &mut self,
        children: &[&Mount],
        facts: &Facts,
        old: BorrowedFd<'_>,
        park: &mut Park<'_>,
    ) -> Result<(), Fault> {
        for child in children {
            for _ in 0..layers(child, &facts.mounts) {
                let mount = find(old, &child.point)?;
                let file = Meta::read(At::Open(mount.as_fd()))?.kind != FileType::Directory;
                shift(&mount, park.place(file)?, &child.point)?;
                self.parked.push(Taken { mount, point: child.point.clone(), file });
            }
        }
        Ok(())
    }

    fn put_back(&mut self, old: BorrowedFd<'_>) -> Result<(), Fault> {
        while let Some(taken) = self.parked.pop() {
            let place = find(old, &taken.point)?;
            shift(&taken.mount, place.as_fd(), &taken.point)?;
        }
        Ok(())
    }

    /// Everything back to the old root, which is the only root again.
    fn back(&mut self, relocated: &Relocated<'_>, shared: bool) -> Result<(), Fault> {
        let new = &relocated.new;
        let mut park = Park { dir: new.dir.as_fd(), file: None };
        while let Some(taken) = self.placed.pop() {
            shift(&taken.mount, park.place(taken.file)?, &taken.point)?;
            self.parked.push(taken);
        }
        self.put_back(new.site.root.as_fd())?;
        park.close(relocated);
        if self.attached {
            fchdir(&new.dir).call("fchdir")?;
            let detached = unmount(".", UnmountFlags::DETACH).on("umount2", b".");
            fchdir(&new.site.root).call("fchdir")?;
            detached?;
            self.attached = false;
        }
        if shared && self.private {
            mount_change("/", MountPropagationFlags::SHARED).on("mount", b"/")?;
        }
        Ok(())
    }
}

/// Where mounts wait: directories on the new root's root, files on a file that is there as long as it is needed.
struct Park<'a> {
    dir: BorrowedFd<'a>,
    file: Option<(CString, OwnedFd)>,
}

impl Park<'_> {
    fn place(&mut self, file: bool) -> Result<BorrowedFd<'_>, Fault> {
        if !file {
            return Ok(self.dir);
        }
        if self.file.is_none() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mut number = 0;
            let name = loop {
                let name = CString::new(format!(".repot-park{number}")).unwrap_or_default();
                match openat(self.dir, &name, flags, Mode::RUSR) {
                    Err(Errno::EXIST) => number += 1,
                    made => break made.on("openat", name.to_bytes()).map(|_| name)?,
                }
            };
            let file = openat(self.dir, &name, PATH, Mode::empty()).on("openat", name.to_bytes())?;
            self.file = Some((name, file));
        }
        Ok(self.file.as_ref().map_or(self.dir, |(_, file)| file.as_fd()))
    }

    fn close(self, relocated: &Relocated<'_>) {
        if let Some((name, _)) = self.file {
            let _ = unlinkat(self.dir, &name, AtFlags::empty());
            // The root had its final times.
            let _ = utimensat(self.dir, c".", &relocated.times(), AtFlags::empty());
        }
    }
}

/// How many mounts are on top of one another where `mount` is, itself included.
fn layers(mount: &Mount, mounts: &[Mount]) -> usize {
    let mut count = 1;
    let mut top = mount;
    while let Some(above) =
        mounts.iter().find(|above| above.parent == top.id && above.id != top.id && above.point == mount.point)
    {
        count += 1;
        top = above;
    }
    count
}

/// Opens the place `path` below `root`, name by name because it may be longer than the kernel takes at once. Leads to the
/// topmost mount there; mount points never have symbolic links in their paths.
fn find(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Fault> {
    let mut at = openat(root, c".", PATH, Mode::empty()).on("openat", path)?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        at = openat(&at, name, PATH, Mode::empty()).on("openat", path)?;
    }
    Ok(at)
}

fn shift(mount: &OwnedFd, place: BorrowedFd<'_>, point: &[u8]) -> Result<(), Fault> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags).on("move_mount", point)
}
