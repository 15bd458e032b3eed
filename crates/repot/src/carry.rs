//! Attaches the new root above the old one, and moves the mounts from the old root to the new one.
//!
//! Only mounts directly on the old root are moved; each takes along the mounts below it. A path reaches only
//! the topmost of several mounts at one place, and nothing that another mount hides. Such mounts are first
//! taken off, outer before inner and upper before lower, and parked, each at its own place in the new root.
//! From there they are moved to their final places in the opposite order.

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags, mkdirat, mknodat, openat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree,
    unmount,
};
use rustix::process::{chdir, fchdir};

use crate::error::{Call, Error, Fault, Step, Torn, retry_once};
use crate::facts::Facts;
use crate::facts::mountinfo::Mount;
use crate::metadata::{At, Meta, kept_flags};
use crate::plan::Method;
use crate::relocate::Relocated;

/// The mounts are on the new root, which is attached above the old one.
#[derive(Debug)]
pub(crate) struct Carried<'s> {
    pub(crate) relocated: Relocated<'s>,
    pub(crate) shared: bool,
    places: Places,
    /// The number of moved mounts, without the mounts below them.
    pub(crate) mounts: usize,
    /// Parking places that could not be removed.
    pub(crate) left: Vec<Fault>,
}

/// Moves the mounts.
///
/// # Errors
/// The call that failed. Mounts and tree are rolled back then.
pub(crate) fn carry<'s>(relocated: Relocated<'s>, facts: &Facts) -> Result<Carried<'s>, Error> {
    let mut places = Places {
        parked: Vec::new(),
        placed: Vec::new(),
        copied: 0,
        left: Vec::new(),
        attached: false,
        private: false,
    };
    match places.carry(&relocated, facts) {
        Ok(()) => {
            let left = core::mem::take(&mut places.left);
            let mounts = places.placed.len() + places.copied;
            Ok(Carried { relocated, shared: facts.shared, places, mounts, left })
        }
        Err(fault) => Err(undo(places, relocated, facts.shared, fault.at(Step::Carry))),
    }
}

impl Carried<'_> {
    /// Rolls everything back after `error`.
    pub(crate) fn roll_back(self, error: Error) -> Error {
        undo(self.places, self.relocated, self.shared, error)
    }
}

fn undo(mut places: Places, relocated: Relocated<'_>, shared: bool, mut error: Error) -> Error {
    let (mounts, tree) = (places.roll_back(&relocated, shared), relocated.roll_back());
    error.torn = error.torn.or(mounts.map_err(Torn::Undo).and(tree).err());
    error
}

/// A mount that was taken off the old root.
#[derive(Debug)]
struct Taken {
    mount: OwnedFd,
    point: Vec<u8>,
    /// Whether it is mounted on a file rather than on a directory.
    file: bool,
    /// Whether it moves directly, without being parked.
    direct: bool,
}

/// The state of all mounts, for the rollback.
#[derive(Debug)]
struct Places {
    /// Mounts in the park.
    parked: Vec<Taken>,
    /// Mounts at their final places.
    placed: Vec<Taken>,
    /// The number of mounts that were copied rather than moved.
    copied: usize,
    /// Parking places that could not be removed.
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
            // The kernel refuses to move a mount away from a shared one (`do_move_mount`).
            mount_change("/", MountPropagationFlags::PRIVATE).on("mount", b"/")?;
            self.private = true;
        }
        // The path must be "/", which leads to the topmost mount there. A descriptor of the old root does
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
        if new.method == Method::Bind && facts.parentless && !facts.others.is_empty() {
            return self.copy(&children, new.site.root.as_fd(), new.dir.as_fd());
        }
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

    /// Copies the mounts that can be reached, and leaves them to the processes whose root stays the old one:
    /// without pivot_root it stays for all but this process.
    fn copy(&mut self, children: &[&Mount], old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> Result<(), Fault> {
        for child in children {
            if children.iter().any(|other| hides(other, child)) {
                continue;
            }
            let mount = find(old, &child.point)?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::AT_RECURSIVE;
            let copy = open_tree(&mount, "", flags).on("open_tree", &child.point)?;
            shift(&copy, find(new, &child.point)?.as_fd(), &child.point)?;
            self.copied += 1;
        }
        Ok(())
    }

    /// Moves mounts directly where possible, and parks the others.
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
            let direct =
                layers == 1 && !children.iter().any(|other| hides(child, other) || hides(other, child));
            for _ in 0..layers {
                let mount = find(old, &child.point)?;
                let file = Meta::read(At::Open(mount.as_fd()))?.kind != FileType::Directory;
                let place = if direct { find(new, &child.point)? } else { park.place(file)? };
                shift(&mount, place.as_fd(), &child.point)?;
                let taken = Taken { mount, point: child.point.clone(), file, direct };
                if direct { self.placed.push(taken) } else { self.parked.push(taken) }
            }
        }
        Ok(())
    }

    /// Moves every mount back to the old root.
    fn take_back(&mut self, old: BorrowedFd<'_>, park: &mut Park<'_>) -> Result<(), Fault> {
        while let Some(taken) = self.placed.pop() {
            let place = if taken.direct { find(old, &taken.point)? } else { park.place(taken.file)? };
            shift(&taken.mount, place.as_fd(), &taken.point)?;
            if !taken.direct {
                self.parked.push(taken);
            }
        }
        while let Some(taken) = self.parked.pop() {
            let place = find(old, &taken.point)?;
            shift(&taken.mount, place.as_fd(), &taken.point)?;
        }
        Ok(())
    }

    /// Moves every mount back, and detaches the new root.
    fn roll_back(&mut self, relocated: &Relocated<'_>, shared: bool) -> Result<(), Fault> {
        let new = &relocated.new;
        let mut park = Park::new(new.dir.as_fd());
        let taken = self.take_back(new.site.root.as_fd(), &mut park);
        taken.and(park.close(relocated))?;
        if self.attached && fchdir(&new.dir).is_ok() {
            // If it cannot be detached, it stays above the old root, where no process sees it whose root is
            // the old one.
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

/// Whether `outer` is mounted above the mount point of `inner`.
fn hides(outer: &Mount, inner: &Mount) -> bool {
    inner.point.strip_prefix(outer.point.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Parking places: each mount gets its own directory or file. If a mount were parked on a shared mount, it
/// would propagate to that mount's peers.
struct Park<'a> {
    dir: BorrowedFd<'a>,
    /// The places, with the flags to unlink them.
    names: Vec<(CString, AtFlags)>,
    /// The inode flags of the new root, which are cleared while places exist: they could forbid creating
    /// them.
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

    /// Removes the places, and restores the times and inode flags of the root. Failed calls are retried once,
    /// because no later step would clean up.
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

/// The number of mounts stacked at the place of `mount`, itself included.
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

/// Opens `path` below `root`, component by component because it may be longer than PATH_MAX. The result is
/// the topmost mount there. Paths of mount points contain no symbolic links.
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
