//! A walk over a tree by several threads, in memory that does not grow with the number of entries.
//!
//! Each thread goes depth first with its own stack, of which only the deepest directories are open. A directory further up
//! is reopened through `..` when the walk returns to it. A thread that sees idle workers hands off a subdirectory. A
//! directory is left after its last subdirectory, by whichever thread left that.

pub mod survey;
pub(crate) mod sweep;
mod tasks;
mod worker;

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, openat};

use crate::error::{Call, Fault};
use crate::sys::{self, Event};
pub(crate) use tasks::Broken;
use tasks::Shared;
use worker::Worker;

/// How directories are opened: to be listed, without changing their access times.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOATIME)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a directory below `dir`, or `.` or `..`.
pub(crate) fn open(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Fault> {
    openat(dir, name, DIRECTORY, Mode::empty()).call("openat")
}

/// What is open of a directory during a walk.
pub(crate) trait Directory: Send + Sized {
    /// How many descriptors that is.
    const DESCRIPTORS: usize;
    /// The descriptor to list it through.
    fn listed(&self) -> BorrowedFd<'_>;
    /// Opens its parent, or the subdirectory `name`.
    fn open(&self, name: &CStr) -> Result<Self, Fault>;
}

impl Directory for OwnedFd {
    const DESCRIPTORS: usize = 1;
    fn listed(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
    fn open(&self, name: &CStr) -> Result<Self, Fault> {
        open(self, name)
    }
}

/// A directory in both trees; the old one is listed.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) old: OwnedFd,
    pub(crate) new: OwnedFd,
}

impl Pair {
    /// Opens the roots anew, for a walk to have.
    pub(crate) fn reopen(old: &OwnedFd, new: &OwnedFd) -> Result<Pair, Fault> {
        Ok(Pair { old: open(old, c".")?, new: open(new, c".")? })
    }
}

impl Directory for Pair {
    const DESCRIPTORS: usize = 2;
    fn listed(&self) -> BorrowedFd<'_> {
        self.old.as_fd()
    }
    fn open(&self, name: &CStr) -> Result<Self, Fault> {
        Ok(Pair { old: open(&self.old, name)?, new: open(&self.new, name)? })
    }
}

/// A directory that was entered, and what is remembered of it; `None` if it is not to be walked.
pub(crate) type Entered<V> = Option<(<V as Visitor>::Dir, <V as Visitor>::Meta)>;

/// What a walk does at each place.
pub(crate) trait Visitor: Sync + Sized {
    /// What is open of a directory.
    type Dir: Directory;
    /// What is remembered of a directory until it is left.
    type Meta: Send + Sync;
    /// What each thread keeps from one entry to the next.
    type Scratch: Default;
    /// Whether entries vanish as they are visited; if so, a directory that is read again begins with what is left.
    const REMOVES: bool;

    /// Visits an entry that is not a directory.
    fn entry(
        &self,
        scratch: &mut Self::Scratch,
        dir: &Self::Dir,
        name: &CStr,
        kind: FileType,
    ) -> Result<(), Fault>;

    /// Opens a subdirectory.
    fn enter(&self, dir: &Self::Dir, name: &CStr) -> Result<Entered<Self>, Fault>;

    /// Leaves a directory after everything below it; `whole` is false if the walk failed somewhere below. The root has no
    /// parent.
    fn leave(
        &self,
        _scratch: &mut Self::Scratch,
        _parent: Option<(&Self::Dir, &CStr)>,
        _dir: &Self::Dir,
        _meta: &Self::Meta,
        _whole: bool,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// Does something else on an idle worker; returns whether there was anything to do.
    fn assist(&self, _: &mut Self::Scratch) -> bool {
        false
    }

    /// Takes what a thread kept when it ends.
    fn done(&self, _: Self::Scratch) {}

    /// Stops all waiting for other threads: one of them was lost.
    fn abandon(&self) {}
}

/// Walks the tree below `root` with up to `threads` threads; on the calling thread with 0. `meanwhile` is called once a second.
///
/// # Errors
/// The first fault, with the path. Every directory that was entered has then been left, with `whole` false.
pub(crate) fn walk<V: Visitor>(
    visitor: &V,
    root: V::Dir,
    meta: V::Meta,
    threads: u32,
    meanwhile: &dyn Fn(),
) -> Result<(), Broken> {
    walk_with(&Event::new(), visitor, root, meta, threads, meanwhile)
}

/// As [`walk`]; `bell` wakes idle workers, for [`Visitor::assist`].
pub(crate) fn walk_with<V: Visitor>(
    bell: &Event,
    visitor: &V,
    root: V::Dir,
    meta: V::Meta,
    threads: u32,
    meanwhile: &dyn Fn(),
) -> Result<(), Broken> {
    let shared = Shared::new(visitor, bell, root, meta, threads);
    let lost = || {
        shared.abandon(Fault::lost_worker());
        visitor.abandon();
    };
    sys::crew(threads, &|_| Worker::new(&shared).run(), meanwhile, &lost);
    shared.outcome()
}
