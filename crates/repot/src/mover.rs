//! Moves a tree from one file system to another: copy one entry, free it, next.
//!
//! Input: descriptors of both roots. Output: the whole tree in the new root, with every attribute; the old
//! root is empty. At most one chunk of a file per worker is in memory
//! twice, and every byte is always in one of the trees. Whatever has been freed in the old tree is complete
//! in the new one, attributes included. So the same code, with the roots exchanged, rolls a move back.

mod both;
pub(crate) mod data;
mod entries;
mod file;
mod folios;
mod holes;
mod links;
mod names;
mod passes;
mod ranges;
mod undo;

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;

use rustix::fd::AsFd;
use rustix::fs::{IFlags, Mode};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::error::{Call, Error, Fault, Step, Torn};
use crate::facts::{Facts, RootFs};
use crate::manifest;
use crate::metadata::{Attributes, Meta, has_xattrs};
use crate::newroot::NewRoot;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::reserve::Reserve;
use crate::skipped::Skipped;
use crate::sys;
use both::Both;
pub use data::CHUNK;
pub(crate) use data::zero;
#[cfg(feature = "payload")]
pub(crate) use entries::UNPACKED;
use entries::{DirMeta, Mover, Onto};
use file::Settings;
use folios::Folios;
pub(crate) use holes::{Holes, data_ranges};
use links::Links;
use ranges::LargeFiles;
use undo::Moved;

/// The result of a move or of unpacking: the tree is in the new root.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// How to roll the move back; `None` past the point of no return.
    pub(crate) undo: Option<Undo>,
    /// The executable inits, best first.
    pub(crate) inits: Vec<Vec<u8>>,
    /// The extended attributes that were skipped, and what else was not moved as it was.
    pub(crate) warnings: Vec<String>,
}

/// Rolls a move back.
#[derive(Debug)]
pub(crate) struct Undo(Option<Moved>);

impl Undo {
    /// Nothing to roll back: the new root is a bind mount of the old one, so the tree never moved.
    pub(crate) fn nothing() -> Self {
        Undo(None)
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Moves the tree back. The working directory must be the root of a procfs, and the umask 0.
    pub(crate) fn run(&self, new: &NewRoot<'_>) -> Result<(), Fault> {
        self.0.as_ref().map_or(Ok(()), |moved| moved.roll_back(new))
    }
}

/// Moves the tree. The working directory must be the root of a procfs, and the umask 0. `root` holds the
/// attributes of the old root directory.
///
/// # Errors
/// What failed. The tree is then back in the old root, unless the error is torn.
pub(crate) fn run(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    root: Meta,
    progress: &Progress,
    meanwhile: &dyn Fn(&Progress),
) -> Result<Arrived, Error> {
    // The memory reserve is for the rollback. Without it no move starts.
    if sys::is_memory_short() {
        return Err(Errno::NOMEM).call("malloc").map_err(|fault: Fault| fault.at(Step::Relocate));
    }
    let moved = prepare(new, facts, root).map_err(|fault| fault.at(Step::Relocate))?;
    let folios =
        if plan.large_folios { Folios::try_large(&new.mount, new.dir.as_fd()) } else { Folios::unchanged() };
    let large_files = LargeFiles::new(plan.threads);
    let skipped = Skipped::default();
    let mut mover = moved.mover(facts, plan, (progress, &skipped), &folios, &large_files, Onto::Fresh);
    mover.later = &facts.kernel_programs;
    let mut meta = root;
    // The kernel gives its initial tmpfs the mode 1777 unless the archive has an entry for "/". Nobody chose
    // that mode.
    if facts.initial && facts.rootfs == RootFs::Tmpfs && meta.mode.as_raw_mode() == 0o1777 {
        meta.mode = Mode::from_raw_mode(0o755);
    }
    let meta = DirMeta { meta, flags: moved.flags, merged: false, existed: true };
    let inits = plan.inits.clone();
    sys::tear(true);
    let reserve = (facts.machine && plan.tight)
        .then(|| Reserve::release(new.site.proc.as_fd(), plan.zram.is_some(), facts.page));
    if let Err(fault) = passes::run(&mut mover, new, meta, plan.threads, &|| meanwhile(progress)) {
        let torn = moved.roll_back(new).err().map(Torn::Undo);
        return Err(Error { torn, ..fault.at(Step::Relocate) });
    }
    drop(reserve);
    let mut warnings = manifest::apply(new.dir.as_fd(), &facts.manifests);
    warnings.append(&mut skipped.warnings(Step::Relocate));
    Ok(Arrived { undo: Some(Undo(Some(moved))), inits, warnings })
}

/// Moves what is left in the old root after the move. Returns warnings.
pub(crate) fn collect(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    root: Meta,
) -> Result<Vec<String>, Fault> {
    let moved = prepare(new, facts, root)?;
    let (progress, skipped) = (Progress::default(), Skipped::default());
    let (folios, large_files) = (Folios::unchanged(), LargeFiles::new(1));
    let mut mover = moved.mover(facts, plan, (&progress, &skipped), &folios, &large_files, Onto::Again);
    let meta = DirMeta { meta: root, flags: IFlags::empty(), merged: false, existed: true };
    // The staging directory must not stay.
    passes::run(&mut mover, new, meta, 0, &|| ()).inspect_err(|_| _ = moved.links.clear())?;
    Ok(skipped.warnings(Step::Relocate))
}

/// Moves whatever the old root holds beside a payload into the new root, where the payload was unpacked. This
/// cannot be rolled back.
#[cfg(feature = "payload")]
pub(crate) fn merge(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    root: Meta,
    (progress, skipped): (&Progress, &Skipped),
    meanwhile: &dyn Fn(),
) -> Result<(), Fault> {
    let moved = prepare(new, facts, root)?;
    let (folios, large_files) = (Folios::unchanged(), LargeFiles::new(plan.threads));
    let mut mover = moved.mover(facts, plan, (progress, skipped), &folios, &large_files, Onto::Payload);
    let meta = DirMeta { meta: root, flags: moved.flags, merged: true, existed: true };
    passes::run(&mut mover, new, meta, plan.threads, meanwhile)
}

/// Makes the staging directory for hard links.
fn prepare(new: &NewRoot<'_>, facts: &Facts, root: Meta) -> Result<Moved, Fault> {
    let old = &new.site.old;
    let attributes = Attributes {
        xattrs: facts.rootfs != RootFs::Ramfs || has_xattrs(old.as_fd()),
        flags: facts.flags,
        creator: (geteuid().as_raw(), getegid().as_raw()),
    };
    let links = Links::new(new.dir.as_fd(), old.as_fd())?;
    let flags = attributes.clear_flags(old.as_fd()).inspect_err(|_| _ = links.clear())?;
    Ok(Moved { links, attributes, flags, root, both: Both::default() })
}

/// How to find the holes of files in the old root.
pub(crate) fn holes(facts: &Facts) -> Holes {
    if facts.rootfs == RootFs::Ramfs { Holes::PageCache } else { Holes::Seek }
}

impl Moved {
    /// Returns the mover from the old root to the new one.
    fn mover<'a>(
        &'a self,
        facts: &Facts,
        plan: &Plan,
        (progress, skipped): (&'a Progress, &'a Skipped),
        folios: &'a Folios,
        large_files: &'a LargeFiles,
        onto: Onto,
    ) -> Mover<'a> {
        let beside = if onto == Onto::Payload { !facts.others.is_empty() } else { plan.beside };
        let settings = Settings {
            attributes: self.attributes,
            holes: holes(facts),
            program: facts.program,
            wipe: plan.wipe,
            folios,
            large_files,
            progress,
            both: &self.both,
            skipped,
            beside,
        };
        Mover { settings, links: &self.links, onto, before: None, later: &[], moved: AtomicU64::new(0) }
    }
}
