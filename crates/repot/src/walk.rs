//! Walks a tree with several threads, in memory that does not grow with the number of entries.
//!
//! Each thread goes depth first with its own stack. Only the deepest directories of a stack are open; a
//! directory further up is reopened through `..` when the walk returns to it. A thread that sees idle workers
//! hands off a subdirectory. A directory is left after its last subdirectory, by whichever thread left that
//! one.

pub mod survey;
pub(crate) mod sweep;
mod tasks;
mod worker;

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::error::{Call, Fault};
use crate::sys::{self, Event};
use tasks::Shared;
use worker::Worker;

/// Flags to open a directory for listing, without changing its access time.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOATIME)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a subdirectory of `dir`, or `.` or `..`.
pub(crate) fn open(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Fault> {
    openat(dir, name, DIRECTORY, Mode::empty()).call("openat")
}

/// Whether an error means that another process has removed or replaced an entry since it was listed.
pub(crate) fn has_vanished(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// The descriptors that a walk keeps open for a directory.
pub(crate) trait Directory: Send + Sized {
    /// Their number.
    const DESCRIPTORS: usize;
    /// The descriptor to list the directory through.
    fn listed(&self) -> BorrowedFd<'_>;
    /// Opens the subdirectory `name`, or the parent for `..`.
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

/// A directory in both trees. The one in the old tree is listed.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) old: OwnedFd,
    pub(crate) new: OwnedFd,
}

impl Pair {
    /// Opens both roots again, with descriptors that a walk may own.
    pub(crate) fn reopen(old: &OwnedFd, new: &OwnedFd) -> Result<Pair, Fault> {
        let root = |dir| open(dir, c".").map_err(|fault| fault.on(b"/".to_vec()));
        Ok(Pair { old: root(old)?, new: root(new)? })
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

/// A directory that was entered, with the metadata to keep until it is left; `None` to skip it.
pub(crate) type Entered<V> = Option<(<V as Visitor>::Dir, <V as Visitor>::Meta)>;

/// The operations of a walk.
pub(crate) trait Visitor: Sync + Sized {
    /// The descriptors of a directory.
    type Dir: Directory;
    /// State of a directory, kept until it is left.
    type Meta: Send + Sync;
    /// State of one thread, kept from one entry to the next.
    type Scratch: Default;

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

    /// Whether visiting an entry removes it. A directory that is read again then lists only what remains.
    fn removes(&self) -> bool {
        false
    }

    /// Leaves a directory after everything below it. `complete` is false if the walk failed somewhere below.
    /// `parent` is `None` for the root.
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

    /// Gives an idle worker other work. Returns whether there was any.
    fn assist(&self, _: &mut Self::Scratch) -> bool {
        false
    }

    /// Takes the scratch of a thread that ends.
    fn done(&self, _: Self::Scratch) {}

    /// Wakes everything that waits for another thread, because one was lost.
    fn abandon(&self) {}
}

/// Walks the tree below `root` with up to `threads` threads; with 0, on the calling thread. `meanwhile` is
/// called once a second.
///
/// # Errors
/// The first fault, with the path. Unless a worker was lost or a parent could not be reopened, every
/// directory that was entered has then been left, with `complete` false.
pub(crate) fn walk<V: Visitor>(
    visitor: &V,
    root: V::Dir,
    meta: V::Meta,
    threads: u32,
    meanwhile: &dyn Fn(),
) -> Result<(), Fault> {
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
) -> Result<(), Fault> {
    let shared = Shared::new(visitor, bell, root, meta, threads);
    let lost = || {
        shared.abandon(Fault::lost_worker());
        visitor.abandon();
    };
    sys::crew(threads, &|_| Worker::new(&shared).run(), meanwhile, &lost);
    shared.outcome()
}
