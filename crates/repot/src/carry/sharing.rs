//! Propagation: mounts are moved and made again while everything is private, so that nothing propagates by
//! the way. At the end each mount joins its peer group again.

use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, move_mount};

use super::{Mounts, Placed, change, clone};
use crate::error::{Call, Fault, retry_once};
use crate::facts::mountinfo::Mount;
use crate::plan::mounts::{SET_GROUP, is_own};

/// A shared mount that was made private.
#[derive(Debug)]
pub(super) struct Unshared<'s> {
    pub(super) what: &'s Mount,
    mount: OwnedFd,
    /// A detached copy, which keeps the place in the peer group.
    keeper: Option<OwnedFd>,
}

impl<'s> Mounts<'s> {
    /// Makes a shared mount private.
    pub(super) fn unshare(&mut self, what: &'s Mount, mount: OwnedFd) -> Result<(), Fault> {
        let joins = self.facts.kernel >= SET_GROUP;
        let keeper = if joins { Some(clone(&mount, false, &what.point)?) } else { None };
        change(&mount, MountPropagationFlags::PRIVATE, &what.point)?;
        self.unshared.push(Unshared { what, mount, keeper });
        Ok(())
    }

    /// Restores the propagation of all mounts on `root`, which is the old root unless a new one is attached.
    /// The working directory must be the root of a procfs. `again` says that the bind mounts of the root were
    /// made again.
    ///
    /// Returns the calls that failed.
    pub(super) fn share(&mut self, root: BorrowedFd<'_>, again: bool) -> Vec<Fault> {
        let facts = self.facts;
        let mut failed = Vec::new();
        let is_old_root = |what: &Mount| what.id == facts.root_mount;
        for unshared in &self.unshared {
            let replaced = is_own(facts, unshared.what) && again;
            let left = is_old_root(unshared.what) && self.attached;
            if !replaced && !left {
                failed.extend(unshared.share().err());
            }
        }
        if !again {
            return failed;
        }
        let mut leaders: Vec<(u64, BorrowedFd<'_>)> = Vec::new();
        let old = facts.mounts.iter().find(|mount| is_old_root(mount) && mount.group != 0);
        leaders.extend(old.map(|old| (old.group, root)));
        // The first of a group shows all that the others show, and the others join it.
        let mut waiting: Vec<&Placed<'_>> = Vec::new();
        for placed in self.placed.iter().filter(|placed| placed.again) {
            let length = |placed: &Placed<'_>| placed.parked.what.root.len();
            let at = waiting.iter().position(|other| length(other) > length(placed));
            waiting.insert(at.unwrap_or(waiting.len()), placed);
        }
        loop {
            let before = waiting.len();
            waiting.retain(|placed| {
                let master = placed.parked.what.master;
                let waits = master != 0 && !leaders.iter().any(|(group, _)| *group == master);
                if !waits {
                    failed.extend(join(placed, &mut leaders).err());
                }
                waits
            });
            if waiting.len() == before {
                return failed;
            }
        }
    }
}

impl Unshared<'_> {
    fn share(&self) -> Result<(), Fault> {
        match &self.keeper {
            Some(keeper) => set_group(keeper.as_fd(), &self.mount, &self.what.point),
            None => set(&self.mount, MountPropagationFlags::SHARED, &self.what.point),
        }
    }
}

/// Gives a bind mount that was made again the propagation of the one that it replaces. `leaders` has a mount
/// of each peer group.
fn join<'p>(placed: &'p Placed<'_>, leaders: &mut Vec<(u64, BorrowedFd<'p>)>) -> Result<(), Fault> {
    let (what, mount) = (placed.parked.what, &placed.mount);
    let leader = |wanted: u64| {
        let found = leaders.iter().find(|(group, _)| wanted != 0 && *group == wanted);
        found.map(|(_, leader)| *leader)
    };
    if let Some(leader) = leader(what.group) {
        set_group(leader, mount, &what.point)?;
    } else {
        if let Some(leader) = leader(what.master) {
            set_group(leader, mount, &what.point)?;
            set(mount, MountPropagationFlags::DOWNSTREAM, &what.point)?;
        }
        if what.group != 0 {
            set(mount, MountPropagationFlags::SHARED, &what.point)?;
            leaders.push((what.group, mount.as_fd()));
        }
    }
    if what.unbindable {
        set(mount, MountPropagationFlags::UNBINDABLE, &what.point)?;
    }
    Ok(())
}

/// Makes a mount join the peer group of another mount of the same file system.
fn set_group(from: BorrowedFd<'_>, to: &OwnedFd, point: &[u8]) -> Result<(), Fault> {
    let flags = MoveMountFlags::MOVE_MOUNT_SET_GROUP
        | MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH
        | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    retry_once(|| move_mount(from, "", to, "", flags)).on("move_mount", point)
}

/// As [`change`], but tried twice: at the end of a move nothing is rolled back any more.
fn set(mount: &OwnedFd, flags: MountPropagationFlags, point: &[u8]) -> Result<(), Fault> {
    retry_once(|| change(mount, flags, point))
}
