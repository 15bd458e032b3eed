//! A walk over a tree by several threads, in memory that does not grow with the number of entries.
//!
//! Each thread goes depth first with a stack of its own. Only the deepest directories of a stack are open; one further up is
//! opened again through `..` when the walk comes back to it. A thread that finds others idle gives them a subdirectory.
//! A directory is left when its last subdirectory has been, by whichever thread that was.

use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::BorrowedFd;
use rustix::fs::FileType;

use crate::error::Fault;
use crate::sys::{self, Event};
use crate::tasks::{Broken, Shared};
use crate::worker::Worker;

/// A directory that was entered, and what is remembered of it; `None` where it is not to be walked.
pub(crate) type Entered<V> = Option<(<V as Visitor>::Dir, <V as Visitor>::Meta)>;

/// What a walk does at each place.
pub(crate) trait Visitor: Sync + Sized {
    /// What is open of a directory.
    type Dir: Send;
    /// What is remembered of a directory until it is left.
    type Meta: Send + Sync;
    /// What each thread keeps from one entry to the next.
    type Scratch: Default;
    /// Whether entries vanish as they are visited; if so, a directory read anew begins with what is left.
    const REMOVES: bool;
    /// How many descriptors a `Dir` holds.
    const DESCRIPTORS: usize;

    /// The descriptor to list the directory through.
    fn list(dir: &Self::Dir) -> BorrowedFd<'_>;
    /// Opens the parent.
    fn parent(&self, dir: &Self::Dir) -> Result<Self::Dir, Fault>;
    /// Visits what is not a directory.
    fn entry(
        &self,
        scratch: &mut Self::Scratch,
        dir: &Self::Dir,
        name: &CStr,
        kind: FileType,
    ) -> Result<(), Fault>;
    /// Opens a subdirectory.
    fn enter(&self, dir: &Self::Dir, name: &CStr) -> Result<Entered<Self>, Fault>;
    /// What threads without a directory wait for.
    fn bell(&self) -> &Event;
    /// What a thread without a directory can do meanwhile; whether there was anything.
    fn assist(&self, _: &mut Self::Scratch) -> bool {
        false
    }
    /// Takes what a thread kept, when it has ended.
    fn done(&self, _: Self::Scratch) {}
    /// Lets no thread wait for another any longer: one of them was lost.
    fn abandon(&self) {}
    /// Leaves a directory after all below it; `whole` is false where the walk failed somewhere below. The root has no parent.
    fn leave(
        &self,
        scratch: &mut Self::Scratch,
        parent: Option<(&Self::Dir, &CStr)>,
        dir: &Self::Dir,
        meta: &Self::Meta,
        whole: bool,
    ) -> Result<(), Fault>;
}

/// Walks the tree below `root` with up to `threads` threads; `meanwhile` is called once a second.
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
    let shared = Shared::new(visitor, root, meta, threads);
    let lost = || {
        let panic = Fault { call: "panic", path: Vec::new(), errno: rustix::io::Errno::CANCELED };
        shared.abandon(panic);
        visitor.abandon();
    };
    sys::crew(threads, &|_| Worker::new(&shared).run(), meanwhile, &lost);
    shared.outcome()
}
