//! Moves a tree from one file system to another: copy one entry, free it, next.
//!
//! In: the two roots, by descriptor. Out: everything in the new one, with every attribute, and the old one
//! empty but for the mount points still in use. Each thread holds at most one chunk of a file in memory
//! twice, and every byte is always in one of the trees. Whatever has been freed in the old tree is whole in
//! the new one, attributes included. That is why the same code, with the roots exchanged, rolls a move back.

pub(crate) mod data;
mod entries;
mod file;
mod folios;
mod links;
mod ranges;
mod undo;

use alloc::string::String;
use alloc::vec::Vec;

use rustix::fd::AsFd;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::error::{Call, Error, Fault, Step, Torn};
use crate::facts::{Facts, RootFs};
use crate::manifest;
use crate::metadata::{Attributes, Meta};
use crate::newroot::NewRoot;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::reserve::Reserve;
use crate::sys;
use crate::walk::{Pair, walk_with};
pub use data::CHUNK;
use data::Holes;
#[cfg(feature = "payload")]
pub(crate) use data::zero;
#[cfg(feature = "payload")]
pub(crate) use entries::UNPACKED;
use entries::{DirMeta, Mover, Onto};
use file::Means;
use folios::Folios;
use links::Links;
use ranges::Board;
use undo::Moved;

/// The tree is in the new root.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// How to roll that back; `None` past the point of no return.
    pub(crate) undo: Option<Undo>,
    /// The attributes of the new root directory.
    pub(crate) root: Meta,
    /// The executable inits, best first.
    pub(crate) inits: Vec<Vec<u8>>,
    /// The extended attributes that were skipped.
    pub(crate) warnings: Vec<String>,
}

/// How to put the tree back into the old root.
#[derive(Debug)]
pub(crate) struct Undo(Option<Moved>);

impl Undo {
    /// Nothing: the tree never left, since the new root is a bind mount of the old one.
    pub(crate) fn nothing() -> Self {
        Undo(None)
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Puts the tree back. The working directory must be the root of a procfs, and the umask 0.
    pub(crate) fn run(&self, new: &NewRoot<'_>) -> Result<(), Fault> {
        self.0.as_ref().map_or(Ok(()), |moved| moved.roll_back(new))
    }
}

/// Moves the tree. The working directory must be the root of a procfs, and the umask 0. `root` are the
/// attributes of the old root directory.
///
/// # Errors
/// What failed. Everything is then back in the old root, unless the error says that it is torn.
pub(crate) fn run(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    root: Meta,
    progress: &Progress,
    meanwhile: &dyn Fn(&Progress),
) -> Result<Arrived, Error> {
    // What was set aside is for the rollback; without it no move is started.
    if sys::is_memory_short() {
        return Err(Errno::NOMEM).call("malloc").map_err(|fault: Fault| fault.at(Step::Relocate));
    }
    let (pair, moved) = prepare(new, facts, root).map_err(|fault| fault.at(Step::Relocate))?;
    let folios =
        if plan.large_folios { Folios::on(&new.mount, new.dir.as_fd()) } else { Folios::as_they_come() };
    let board = Board::new(plan.threads);
    let mover = moved.mover(facts, plan, progress, &folios, &board, Onto::Fresh);
    let mut meta = root;
    // The kernel gives its initial tmpfs the mode 1777, unless the archive has an entry for "/". Nobody meant
    // that.
    if facts.initial && facts.rootfs == RootFs::Tmpfs && meta.mode.as_raw_mode() == 0o1777 {
        meta.mode = Mode::from_raw_mode(0o755);
    }
    let meta = DirMeta { meta, flags: moved.flags, merged: false };
    sys::tear(true);
    let _reserve = (facts.machine && plan.tight).then(|| Reserve::release(new.site.proc.as_fd()));
    if let Err(fault) = walk_with(board.bell(), &mover, pair, meta, plan.threads, &|| meanwhile(progress)) {
        let torn = moved.roll_back(new).err().map(Torn::Undo);
        return Err(Error { torn, ..fault.at(Step::Relocate) });
    }
    let warnings = manifest::apply(new.dir.as_fd());
    Ok(Arrived { undo: Some(Undo(Some(moved))), root, inits: plan.inits.clone(), warnings })
}

/// Moves what the old root holds beside a payload into the new one, where the payload was unpacked. There is
/// no way back.
#[cfg(feature = "payload")]
pub(crate) fn merge(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    root: Meta,
    progress: &Progress,
    meanwhile: &dyn Fn(),
) -> Result<(), Fault> {
    let (pair, moved) = prepare(new, facts, root)?;
    let (folios, board) = (Folios::as_they_come(), Board::new(plan.threads));
    let mover = moved.mover(facts, plan, progress, &folios, &board, Onto::Payload);
    let meta = DirMeta { meta: root, flags: moved.flags, merged: true };
    walk_with(board.bell(), &mover, pair, meta, plan.threads, meanwhile)
}

/// Opens both roots, and makes the staging directory for hard links.
fn prepare(new: &NewRoot<'_>, facts: &Facts, root: Meta) -> Result<(Pair, Moved), Fault> {
    let old = &new.site.old;
    let attributes = Attributes {
        xattrs: facts.rootfs != RootFs::Ramfs,
        flags: facts.flags,
        creator: (geteuid().as_raw(), getegid().as_raw()),
    };
    let pair = Pair::reopen(old, &new.dir)?;
    let links = Links::new(new.dir.as_fd(), old.as_fd())?;
    let flags = attributes.free(old.as_fd()).inspect_err(|_| _ = links.clear())?;
    Ok((pair, Moved { links, attributes, flags, root }))
}

impl Moved {
    /// The mover from the old root to the new.
    fn mover<'a>(
        &'a self,
        facts: &Facts,
        plan: &Plan,
        progress: &'a Progress,
        folios: &'a Folios,
        board: &'a Board,
        onto: Onto,
    ) -> Mover<'a> {
        let means = Means {
            attributes: self.attributes,
            holes: if facts.rootfs == RootFs::Ramfs { Holes::PageCache } else { Holes::Seek },
            program: facts.program,
            wipe: plan.wipe,
            folios,
            board,
            progress,
        };
        Mover { means, links: &self.links, onto }
    }
}
