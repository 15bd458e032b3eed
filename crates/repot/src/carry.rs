//! Takes the mounts off the old root before the tree moves, and puts them on the new one afterwards.
//!
//! Until then each is parked at a place of its own ([`park`]), so no mount point is in the way of the move,
//! and nothing in the tree is hidden. Which mounts are taken off one by one, and in which order, is decided
//! by [`crate::plan`]: a path reaches only the topmost of several mounts at one place, and nothing that
//! another mount hides.
//!
//! A bind mount of the old root cannot move: its directory goes away with the tree. It is made again, from
//! the same path in the new root, with its flags; [`sharing`] restores its propagation. A rollback does the
//! same with the old root.

mod park;
mod sharing;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, fchdir};

use crate::error::{Call, Error, Fault, Step, Torn, retry_once};
use crate::facts::Facts;
use crate::facts::mountinfo::Mount;
use crate::metadata::{At, Meta};
use crate::newroot::NewRoot;
use crate::plan::Method;
use crate::plan::mounts::{is_own, pieces};
use crate::relocate::Relocated;
use crate::site::find;
use park::Park;
use sharing::Unshared;

/// The new root is attached above the old one, from which the mounts were taken.
#[derive(Debug)]
pub(crate) struct Lifted<'s> {
    pub(crate) new: NewRoot<'s>,
    pub(crate) mounts: Mounts<'s>,
}

/// The mounts are on the new root.
#[derive(Debug)]
pub(crate) struct Carried<'s> {
    pub(crate) relocated: Relocated<'s>,
    /// Problems that do not affect the next steps.
    pub(crate) left: Vec<Fault>,
}

/// Attaches the new root, and takes the mounts off the old one.
///
/// # Errors
/// The call that failed. All mounts are back then.
pub(crate) fn lift<'s>(mut new: NewRoot<'s>, facts: &'s Facts) -> Result<Lifted<'s>, Error> {
    let mut mounts = Mounts::of(facts, &new);
    match mounts.lift(&mut new) {
        Ok(()) => Ok(Lifted { new, mounts }),
        Err(fault) => {
            let error = fault.at(Step::Carry);
            let torn = mounts.put_back(&new, false).err().map(Torn::Undo);
            Err(Error { torn, ..error })
        }
    }
}

/// Puts the mounts on the new root.
///
/// # Errors
/// The call that failed. Mounts and tree are rolled back then.
pub(crate) fn carry(mut relocated: Relocated<'_>) -> Result<Carried<'_>, Error> {
    let Relocated { new, mounts, .. } = &mut relocated;
    match mounts.carry(new) {
        Ok(()) => {
            let left = mounts.close_park().err().into_iter().collect();
            Ok(Carried { relocated, left })
        }
        Err(fault) => Err(roll_back(relocated, fault.at(Step::Carry))),
    }
}

impl Lifted<'_> {
    /// Puts the mounts back after `error`: the tree is in the old root again.
    pub(crate) fn put_back(mut self, error: Error) -> Error {
        let put = self.mounts.put_back(&self.new, true);
        Error { torn: error.torn.or(put.err().map(Torn::Undo)), ..error }
    }
}

impl Carried<'_> {
    /// Rolls everything back after `error`.
    pub(crate) fn roll_back(self, error: Error) -> Error {
        roll_back(self.relocated, error)
    }
}

/// Takes the mounts off the new root, so that the tree can move back, and puts them on the old one.
fn roll_back(mut relocated: Relocated<'_>, error: Error) -> Error {
    let undone = match relocated.mounts.take_back() {
        Ok(()) => relocated.roll_back().and_then(|()| {
            let Relocated { new, mounts, .. } = &mut relocated;
            mounts.put_back(new, true).map_err(Torn::Undo)
        }),
        Err(fault) => Err(Torn::Undo(fault)),
    };
    Error { torn: error.torn.or(undone.err()), ..error }
}

/// A mount in the park. It costs no descriptor while the tree moves.
#[derive(Debug)]
struct Parked<'s> {
    what: &'s Mount,
    /// Whether it is mounted on a file rather than on a directory.
    file: bool,
    /// The number of its place.
    number: usize,
}

/// A mount that was put on a root.
#[derive(Debug)]
struct Placed<'s> {
    parked: Parked<'s>,
    mount: OwnedFd,
    /// Whether it was made again.
    again: bool,
}

/// The state of all mounts.
#[derive(Debug)]
pub(crate) struct Mounts<'s> {
    facts: &'s Facts,
    /// Whether bind mounts of the root are made again, because the tree moves.
    again: bool,
    park: Option<Park>,
    /// Mounts in the park. The last is the next to be put on a root.
    parked: Vec<Parked<'s>>,
    /// Mounts on a root.
    placed: Vec<Placed<'s>>,
    /// Mounts that are private until the rest is done.
    unshared: Vec<Unshared<'s>>,
    /// Whether mounts are copied rather than moved: without pivot_root, the root of other processes stays the
    /// old one.
    copies: bool,
    copied: usize,
    /// Whether the new root is attached.
    attached: bool,
    proc: BorrowedFd<'s>,
    old: BorrowedFd<'s>,
}

impl<'s> Mounts<'s> {
    fn of(facts: &'s Facts, new: &NewRoot<'s>) -> Self {
        let site = new.site;
        Mounts {
            facts,
            again: new.method != Method::Bind,
            park: None,
            parked: Vec::new(),
            placed: Vec::new(),
            unshared: Vec::new(),
            copies: new.method == Method::Bind && facts.parentless && !facts.others.is_empty(),
            copied: 0,
            attached: false,
            proc: site.proc.as_fd(),
            old: site.root.as_fd(),
        }
    }

    /// The number of mounts that were taken off or copied, without the mounts that moved along with them.
    pub(crate) fn number(&self) -> usize {
        self.placed.len() + self.copied
    }

    /// Restores the propagation of the new root, which is `/` now, and of the mounts on it. Returns the calls
    /// that failed.
    pub(crate) fn share_on(&mut self, new: &NewRoot<'_>) -> Vec<Fault> {
        if self.unshared.is_empty() && self.placed.iter().all(|placed| !placed.again) {
            return Vec::new();
        }
        if let Err(fault) = retry_once(|| self.enter_procfs()) {
            return alloc::vec![fault];
        }
        let mut failed = Vec::new();
        if self.facts.shared {
            let share = || change(&new.mount, MountPropagationFlags::SHARED, b"/");
            failed.extend(retry_once(share).err());
        }
        failed.extend(self.share(new.mount.as_fd(), self.again));
        failed
    }

    fn lift(&mut self, new: &mut NewRoot<'_>) -> Result<(), Fault> {
        self.enter_procfs()?;
        let facts = self.facts;
        // The kernel refuses to move a mount away from a shared one (`do_move_mount`).
        if let Some(root) = facts.mounts.iter().find(|mount| mount.id == facts.root_mount && mount.group != 0)
        {
            let old = find(self.old, b"/")?;
            self.unshare(root, old)?;
        }
        // The path must be "/", which leads to the topmost mount there. A descriptor of the old root does
        // not.
        park::attach(&new.mount)?;
        self.attached = true;
        new.attached()?;
        if facts.shared && new.method == Method::Bind {
            // As a clone of the old root it is shared too, and what is put on it would be from then on.
            change(&new.mount, MountPropagationFlags::PRIVATE, b"/")?;
        }
        if self.copies {
            return Ok(());
        }
        let pieces = pieces(facts, self.again);
        for mount in pieces.iter().rev() {
            let parent = facts.mounts.iter().find(|other| other.id == mount.parent);
            if let Some(parent) = parent
                && parent.group != 0
                && parent.point != mount.point
                && !self.unshared.iter().any(|unshared| unshared.what.id == parent.id)
            {
                let parent_mount = find(self.old, &parent.point)?;
                self.unshare(parent, parent_mount)?;
            }
            self.take(mount)?;
        }
        Ok(())
    }

    /// Parks one mount of the old root.
    fn take(&mut self, what: &'s Mount) -> Result<(), Fault> {
        let mount = find(self.old, &what.point)?;
        let file = Meta::read(At::Open(mount.as_fd()))?.kind != FileType::Directory;
        let number = self.park(&mount, file, &what.point)?;
        self.parked.push(Parked { what, file, number });
        Ok(())
    }

    /// Moves a mount to a place in the park, and returns the number of the place.
    fn park(&mut self, mount: &OwnedFd, file: bool, point: &[u8]) -> Result<usize, Fault> {
        let park = match &mut self.park {
            Some(park) => park,
            none => none.insert(Park::new()?),
        };
        let number = park.place(file)?;
        shift(mount, park.open(number)?.as_fd(), point)?;
        Ok(number)
    }

    fn carry(&mut self, new: &NewRoot<'_>) -> Result<(), Fault> {
        self.enter_procfs()?;
        if self.copies { self.copy(new.mount.as_fd()) } else { self.put(new.mount.as_fd(), self.again) }
    }

    /// Puts all parked mounts on `root`; with `again`, bind mounts of the root are made again.
    fn put(&mut self, root: BorrowedFd<'_>, again: bool) -> Result<(), Fault> {
        // Before the first mount hides any part of the root.
        let made = |parked: &Parked<'_>| {
            if !again || !is_own(self.facts, parked.what) {
                return Ok(None);
            }
            clone(&find(root, &parked.what.root)?, false, &parked.what.point).map(Some)
        };
        let mut made: Vec<Option<OwnedFd>> = self.parked.iter().map(made).collect::<Result<_, Fault>>()?;
        while let Some(parked) = self.parked.last() {
            let made = made.pop().flatten();
            let (what, again) = (parked.what, made.is_some());
            let mount = match (made, &self.park) {
                (Some(made), _) => made,
                (None, Some(park)) => park.open(parked.number)?,
                (None, None) => return Err(Errno::NOENT).on("openat", &what.point),
            };
            shift(&mount, find(root, &what.point)?.as_fd(), &what.point)?;
            if let Some(parked) = self.parked.pop() {
                self.placed.push(Placed { parked, mount, again });
            }
            if again && let Some(placed) = self.placed.last() {
                set_flags(&placed.mount, what)?;
            }
        }
        Ok(())
    }

    /// Copies the mounts that can be reached, and leaves them to the processes whose root stays the old one.
    fn copy(&mut self, new: BorrowedFd<'_>) -> Result<(), Fault> {
        let pieces = pieces(self.facts, false);
        for mount in pieces.iter().filter(|mount| mount.parent == self.facts.root_mount) {
            if pieces.iter().any(|other| other.parent == mount.parent && hides(other, mount)) {
                continue;
            }
            let copy = clone(&find(self.old, &mount.point)?, true, &mount.point)?;
            shift(&copy, find(new, &mount.point)?.as_fd(), &mount.point)?;
            self.copied += 1;
        }
        Ok(())
    }

    /// Parks every mount that was put on a root.
    fn take_back(&mut self) -> Result<(), Fault> {
        self.enter_procfs()?;
        while let Some(Placed { parked, mount, again }) = self.placed.pop() {
            let Parked { what, file, number } = parked;
            let number = if again {
                detach(&mount, &what.point).map(|()| number)
            } else {
                self.park(&mount, file, &what.point)
            };
            self.parked.push(Parked { what, file, number: number? });
        }
        Ok(())
    }

    /// Puts every mount on the old root, and detaches the new one. `moved` says that the tree was away.
    fn put_back(&mut self, new: &NewRoot<'_>, moved: bool) -> Result<(), Fault> {
        let again = moved && self.again;
        self.take_back()?;
        self.put(self.old, again)?;
        self.close_park()?;
        if self.attached {
            // If it cannot be detached, it stays above the old root, where no process sees it whose root is
            // the old one.
            let _ = detach(&new.mount, b"/");
            self.attached = false;
        }
        let shared = self.share(self.old, again);
        let _ = chdir("/");
        shared.into_iter().next().map_or(Ok(()), Err)
    }

    /// Removes the park. What is left in it are bind mounts that were made again.
    fn close_park(&mut self) -> Result<(), Fault> {
        let Some(park) = &self.park else { return Ok(()) };
        retry_once(|| park.close())?;
        self.park = None;
        Ok(())
    }

    /// The calls that take only paths reach a mount through its descriptor in procfs.
    fn enter_procfs(&self) -> Result<(), Fault> {
        fchdir(self.proc).call("fchdir")
    }
}

/// The mount of a descriptor, as a path below the root of procfs.
fn through(mount: &OwnedFd) -> String {
    format!("self/fd/{}", mount.as_raw_fd())
}

fn change(mount: &OwnedFd, flags: MountPropagationFlags, point: &[u8]) -> Result<(), Fault> {
    mount_change(through(mount), flags).on("mount", point)
}

fn detach(mount: &OwnedFd, point: &[u8]) -> Result<(), Fault> {
    unmount(through(mount), UnmountFlags::DETACH).on("umount2", point)
}

/// Gives a bind mount the flags of `what`.
fn set_flags(mount: &OwnedFd, what: &Mount) -> Result<(), Fault> {
    let known = what.options.split(|byte| *byte == b',').map(|option| match option {
        b"ro" => MountFlags::RDONLY,
        b"nosuid" => MountFlags::NOSUID,
        b"nodev" => MountFlags::NODEV,
        b"noexec" => MountFlags::NOEXEC,
        b"noatime" => MountFlags::NOATIME,
        b"nodiratime" => MountFlags::NODIRATIME,
        b"relatime" => MountFlags::RELATIME,
        b"nosymfollow" => MountFlags::NOSYMFOLLOW,
        _ => MountFlags::empty(),
    });
    let mut flags = known.fold(MountFlags::BIND, |all, one| all | one);
    if !flags.intersects(MountFlags::NOATIME | MountFlags::RELATIME) {
        flags |= MountFlags::STRICTATIME;
    }
    mount_remount(through(mount), flags, c"").on("mount", &what.point)
}

/// A detached copy of the mount at `place`, of this directory or file alone or with the mounts below it.
fn clone(place: &OwnedFd, recursive: bool, point: &[u8]) -> Result<OwnedFd, Fault> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(place, "", flags).on("open_tree", point)
}

fn shift(mount: &OwnedFd, place: BorrowedFd<'_>, point: &[u8]) -> Result<(), Fault> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags).on("move_mount", point)
}

/// Whether `outer` is mounted above the mount point of `inner`.
fn hides(outer: &Mount, inner: &Mount) -> bool {
    inner.point.strip_prefix(outer.point.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
}
