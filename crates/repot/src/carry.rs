//! Attaches the new root above the old one and moves the mounts from one to the other.
//!
//! Only mounts directly on the old root are moved: each takes along what is mounted on it. By path one
//! reaches only the topmost of several mounts on one place, and nothing that another mount hides. Where that
//! is so, all that are concerned are first taken off, the outer before the inner and the upper before the
//! lower, and parked, each on a place of its own in the new root; from there they are put in place in the
//! opposite order.

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, mkdirat, mknodat, openat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};
use rustix::process::{chdir, fchdir};

use crate::error::{Call, Error, Fault, Step, Torn, retry_once};
use crate::facts::Facts;
use crate::facts::mountinfo::Mount;
use crate::metadata::{At, Meta, kept_flags};
use crate::relocate::Relocated;

/// The mounts are on the new root, which is attached above the old one.
#[derive(Debug)]
pub(crate) struct Carried<'s> {
    pub(crate) relocated: Relocated<'s>,
    pub(crate) shared: bool,
    places: Places,
    /// How many mounts were moved, those on them not counted.
    pub(crate) mounts: usize,
    /// What could not be removed afterwards.
    pub(crate) left: Vec<Fault>,
}

/// Carries the mounts.
///
/// # Errors
/// The call that failed; mounts and tree are then back where they were.
pub(crate) fn carry<'s>(relocated: Relocated<'s>, facts: &Facts) -> Result<Carried<'s>, Error> {
    let mut places =
        Places { parked: Vec::new(), placed: Vec::new(), left: Vec::new(), attached: false, private: false };
    match places.carry(&relocated, facts) {
        Ok(()) => {
            let left = core::mem::take(&mut places.left);
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
    let (mounts, tree) = (places.back(&relocated, shared), relocated.back());
    error.torn = error.torn.or(mounts.map_err(Torn::Undo).and(tree).err());
    error
}

/// A mount that was taken off its place.
#[derive(Debug)]
struct Taken {
    mount: OwnedFd,
    point: Vec<u8>,
    file: bool,
    /// Whether it can be moved without the park.
    straight: bool,
}

/// Where all mounts are.
#[derive(Debug)]
struct Places {
    parked: Vec<Taken>,
    placed: Vec<Taken>,
    /// What could not be removed from the park.
    left: Vec<Fault>,
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
        // The path must be "/": it leads to the topmost mount there, which a descriptor of the old root does
        // not.
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
        let mut park = Park::new(new.dir.as_fd());
        let (old, fresh) = (new.site.root.as_fd(), new.dir.as_fd());
        let carried = self.take_off(&children, facts, old, fresh, &mut park).and_then(|()| {
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
            let _ = self.take_back(old, &mut park);
        }
        self.left.extend(park.close(relocated).err());
        carried
    }

    /// Moves what can be moved straight to its place, and parks the rest.
    fn take_off(
        &mut self,
        children: &[&Mount],
        facts: &Facts,
        old: BorrowedFd<'_>,
        new: BorrowedFd<'_>,
        park: &mut Park<'_>,
    ) -> Result<(), Fault> {
        for child in children {
            let layers = layers(child, &facts.mounts);
            let straight =
                layers == 1 && !children.iter().any(|other| hides(child, other) || hides(other, child));
            for _ in 0..layers {
                let mount = find(old, &child.point)?;
                let file = Meta::read(At::Open(mount.as_fd()))?.kind != FileType::Directory;
                let place = if straight { find(new, &child.point)? } else { park.place(file)? };
                shift(&mount, place.as_fd(), &child.point)?;
                let taken = Taken { mount, point: child.point.clone(), file, straight };
                if straight { self.placed.push(taken) } else { self.parked.push(taken) }
            }
        }
        Ok(())
    }

    /// Every mount back to the old root.
    fn take_back(&mut self, old: BorrowedFd<'_>, park: &mut Park<'_>) -> Result<(), Fault> {
        while let Some(taken) = self.placed.pop() {
            let place = if taken.straight { find(old, &taken.point)? } else { park.place(taken.file)? };
            shift(&taken.mount, place.as_fd(), &taken.point)?;
            if !taken.straight {
                self.parked.push(taken);
            }
        }
        while let Some(taken) = self.parked.pop() {
            let place = find(old, &taken.point)?;
            shift(&taken.mount, place.as_fd(), &taken.point)?;
        }
        Ok(())
    }

    /// Everything back to the old root, which is the only root again.
    fn back(&mut self, relocated: &Relocated<'_>, shared: bool) -> Result<(), Fault> {
        let new = &relocated.new;
        let mut park = Park::new(new.dir.as_fd());
        let taken = self.take_back(new.site.root.as_fd(), &mut park);
        taken.and(park.close(relocated))?;
        if self.attached && fchdir(&new.dir).is_ok() {
            // Where it cannot be detached, it stays above the old root, where nobody who is in that sees it.
            let _ = unmount(".", UnmountFlags::DETACH);
            let _ = chdir("/");
            self.attached = false;
        }
        if shared && self.private {
            mount_change("/", MountPropagationFlags::SHARED).on("mount", b"/")?;
        }
        Ok(())
    }
}

/// Whether `outer` is mounted above the place of `inner`.
fn hides(outer: &Mount, inner: &Mount) -> bool {
    inner.point.strip_prefix(outer.point.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Where mounts wait: each on a directory or file of its own, since a mount that is shared would draw into
/// its sharing what is mounted on it.
struct Park<'a> {
    dir: BorrowedFd<'a>,
    names: Vec<(CString, AtFlags)>,
    /// The flags of the new root, which must not forbid it.
    flags: IFlags,
}

impl<'a> Park<'a> {
    fn new(dir: BorrowedFd<'a>) -> Self {
        Park { dir, names: Vec::new(), flags: IFlags::empty() }
    }

    fn place(&mut self, file: bool) -> Result<OwnedFd, Fault> {
        if self.names.is_empty() {
            self.flags = ioctl_getflags(self.dir).unwrap_or(IFlags::empty()) & kept_flags();
            if !self.flags.is_empty() {
                ioctl_setflags(self.dir, IFlags::empty()).call("ioctl FS_IOC_SETFLAGS")?;
            }
        }
        let mut number = self.names.len();
        let name = loop {
            let name = CString::new(format!(".repot-park{number}")).unwrap_or_default();
            let kind = if file { FileType::RegularFile } else { FileType::Directory };
            let made = if file {
                mknodat(self.dir, &name, kind, Mode::RUSR, 0)
            } else {
                mkdirat(self.dir, &name, Mode::RWXU)
            };
            match made {
                Err(Errno::EXIST) => number += 1,
                made => break made.on("mknodat", name.to_bytes()).map(|()| name)?,
            }
        };
        let place = openat(self.dir, &name, PATH, Mode::empty()).on("openat", name.to_bytes());
        self.names.push((name, if file { AtFlags::empty() } else { AtFlags::REMOVEDIR }));
        place
    }

    /// Removes the places, and gives the root its times back. What fails is tried twice, since nobody would
    /// come back to it.
    fn close(self, relocated: &Relocated<'_>) -> Result<(), Fault> {
        if self.names.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for (name, flags) in &self.names {
            let remove = || unlinkat(self.dir, name, *flags).on("unlinkat", name.to_bytes());
            outcome = outcome.and(retry_once(remove));
        }
        let finish = || {
            utimensat(self.dir, c".", &relocated.times(), AtFlags::empty()).on("utimensat", b"/")?;
            if self.flags.is_empty() {
                return Ok(());
            }
            ioctl_setflags(self.dir, self.flags).on("ioctl FS_IOC_SETFLAGS", b"/")
        };
        outcome.and(retry_once(finish))
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

/// Opens the place `path` below `root`, name by name because it may be longer than the kernel takes at once.
/// Leads to the topmost mount there; mount points never have symbolic links in their paths.
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
