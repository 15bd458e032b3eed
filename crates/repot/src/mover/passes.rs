//! The passes of a move: the tree, then what an earlier pass has left.
//!
//! The first pass leaves the programs that the kernel itself starts, so that they are missing for as short as
//! possible. Other processes may create entries while the tree moves. Passes follow until one finds nothing.

use alloc::format;
use core::ffi::CStr;
use core::sync::atomic::Ordering;

use rustix::fd::{AsFd, OwnedFd};

use super::entries::{DirMeta, Mover, Onto};
use crate::display::Quoted;
use crate::error::Fault;
use crate::newroot::NewRoot;
use crate::skipped::{Skipped, path_of};
use crate::walk::sweep::visit;
use crate::walk::{Pair, walk_with};

/// The maximum number of passes after the first, so that a process that never stops creating files cannot
/// stop the boot.
const MORE: u32 = 8;

/// Moves the tree. `root` holds the attributes of the new root directory.
///
/// # Errors
/// What failed, with the path. The root directories have all their attributes even then.
pub(super) fn run(
    mover: &mut Mover<'_>,
    new: &NewRoot<'_>,
    root: DirMeta,
    threads: u32,
    meanwhile: &dyn Fn(),
) -> Result<(), Fault> {
    let roots = || Pair::reopen(&new.site.old, &new.dir);
    let all = every(mover, &roots, root, threads, meanwhile);
    let cleared = all.and_then(|()| mover.links.clear());
    let finished = if root.merged {
        Ok(())
    } else {
        // Retried once, as for every other directory.
        let finish = |pair: Pair| mover.finish(&pair, &root).or_else(|_| mover.finish(&pair, &root));
        roots().and_then(finish)
    };
    cleared.and(finished)?;
    report(&new.site.old, &mover.settings.both.stays(), mover.settings.skipped);
    Ok(())
}

fn every(
    mover: &mut Mover<'_>,
    roots: &dyn Fn() -> Result<Pair, Fault>,
    root: DirMeta,
    threads: u32,
    meanwhile: &dyn Fn(),
) -> Result<(), Fault> {
    let pass = |mover: &Mover<'_>, threads| {
        walk_with(mover.settings.large_files.bell(), mover, roots()?, root, threads, meanwhile)
    };
    pass(mover, threads)?;
    if mover.onto == Onto::Payload {
        return Ok(());
    }
    mover.onto = Onto::Again;
    let mut threads = if mover.later.is_empty() { 0 } else { threads };
    mover.later = &[];
    for _ in 0..MORE {
        mover.settings.both.next_pass();
        mover.moved.store(0, Ordering::Relaxed);
        pass(mover, threads)?;
        if mover.moved.load(Ordering::Relaxed) == 0 {
            break;
        }
        threads = 0;
    }
    Ok(())
}

/// Warns about everything in the old tree that was not moved.
fn report(old: &OwnedFd, stays: &[u64], skipped: &Skipped) {
    let check = |dir: &OwnedFd, name: &CStr, inode: u64| {
        if !stays.contains(&inode) {
            let path = path_of(dir.as_fd(), name);
            let path = Quoted(&path);
            skipped.note(format!("{path} appeared while the tree was moved; it stays in the old root"));
        }
    };
    if let Err(fault) = visit(old, &check) {
        skipped.note(format!("{fault}; the old root may not be empty"));
    }
}
