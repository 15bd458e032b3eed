//! The tree moves to the new root; for a bind, which shows the same tree, there is nothing to move.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, Timestamps, openat};
use rustix::io::Errno;
use rustix::process::{chdir, fchdir, getegid, geteuid, umask};

use crate::data::Holes;
use crate::error::{Call, Error, Fault, Step};
use crate::facts::{Facts, RootFs};
use crate::folios::Folios;
use crate::links::Links;
use crate::manifest;
use crate::metadata::{At, Attributes, Meta};
pub use crate::mover::{CHUNK, Progress};
use crate::mover::{DirMeta, Mover, Pair};
use crate::newroot::NewRoot;
use crate::plan::{Method, Plan};
use crate::ranges::Board;
use crate::reserve::Reserve;
use crate::sys;
use crate::undo::undo;
use crate::walk::walk;

/// The tree is in the new root.
#[derive(Debug)]
pub struct Relocated<'s> {
    pub(crate) new: NewRoot<'s>,
    moved: Option<Moved>,
    /// Whether there is nothing to go back to: the tree came from a payload, which is used up.
    used_up: bool,
    /// The programs that can be executed as init, where that shows only when they are unpacked.
    pub(crate) inits: Vec<Vec<u8>>,
    /// The root directory's attributes, as they were before.
    root: Meta,
    /// What was moved.
    pub progress: Progress,
    /// The extended attributes that could not be set.
    pub warnings: Vec<String>,
}

/// What undoing a move needs to know of it.
#[derive(Debug)]
struct Moved {
    links: Links,
    attributes: Attributes,
    flags: rustix::fs::IFlags,
}

/// Moves the tree. `meanwhile` is called once a second with what has been done.
///
/// # Errors
/// The call that failed, with the path. Everything is then back in the old root, unless the error says that it is torn.
pub fn relocate<'s>(
    new: NewRoot<'s>,
    facts: &Facts,
    plan: &Plan,
    meanwhile: &dyn Fn(&Progress),
) -> Result<Relocated<'s>, Error> {
    let progress = Progress::default();
    let root = Meta::read(At::Open(new.site.old.as_fd())).map_err(|fault| fault.at(Step::Relocate))?;
    let mut relocated = Relocated {
        new,
        moved: None,
        used_up: false,
        inits: Vec::new(),
        root,
        progress,
        warnings: Vec::new(),
    };
    if !matches!(plan.method, Method::Move | Method::Payload) {
        return Ok(relocated);
    }
    let Relocated { new, progress, .. } = &relocated;
    // For the calls that take only paths, see metadata. Everything is created with exactly the mode that is asked for.
    fchdir(&new.site.proc).call("fchdir").map_err(|fault| fault.at(Step::Relocate))?;
    let mask = umask(Mode::empty());
    let outcome = arrive(new, facts, plan, root, progress, meanwhile);
    umask(mask);
    // Of a payload there is no way back any more.
    let here = chdir("/").or_else(|_| chdir("/")).on("chdir", b"/");
    let arrived = outcome?;
    relocated.used_up = arrived.moved.is_none();
    relocated.moved = arrived.moved;
    relocated.inits = arrived.inits;
    relocated.warnings = arrived.warnings;
    relocated.root = arrived.root;
    match here {
        Ok(()) => Ok(relocated),
        Err(fault) => {
            let torn = relocated.back().err();
            Err(Error { torn, ..fault.at(Step::Relocate) })
        }
    }
}

/// What came to the new root.
struct Arrived {
    /// What can be moved back.
    moved: Option<Moved>,
    root: Meta,
    inits: Vec<Vec<u8>>,
    warnings: Vec<String>,
}

fn arrive(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    root: Meta,
    progress: &Progress,
    meanwhile: &dyn Fn(&Progress),
) -> Result<Arrived, Error> {
    #[cfg(feature = "payload")]
    if plan.method == Method::Payload {
        return unpacked(new, facts, plan, root, progress, meanwhile);
    }
    let moved = go(new, facts, plan, root, progress, meanwhile)?;
    let warnings = manifest::apply(new.dir.as_fd());
    Ok(Arrived { moved: Some(moved), root, inits: Vec::new(), warnings })
}

/// A payload, and what is beside it.
#[cfg(feature = "payload")]
fn unpacked(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    root: Meta,
    progress: &Progress,
    meanwhile: &dyn Fn(&Progress),
) -> Result<Arrived, Error> {
    let rest = || {
        let (pair, moved) = prepare(new, facts)?;
        let (folios, board) = (Folios::as_they_come(), Board::new(plan.threads));
        let mover = moved.mover(facts, plan, progress, &folios, &board, true);
        let meta = DirMeta { meta: root, flags: moved.flags, merged: true };
        walk(&mover, pair, meta, plan.threads, &|| meanwhile(progress)).map_err(|broken| broken.fault)
    };
    sys::tear(true);
    let unpacked = crate::payload::unpack(new, facts, plan, progress, meanwhile, &rest)?;
    let read = Meta::read(At::Open(new.dir.as_fd()));
    let root = read.map_err(|fault| fault.at(Step::Payload).used_up())?;
    Ok(Arrived { moved: None, root, inits: unpacked.inits, warnings: unpacked.warnings })
}

fn go(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    root: Meta,
    progress: &Progress,
    meanwhile: &dyn Fn(&Progress),
) -> Result<Moved, Error> {
    // What was set aside is for undoing; without it nothing is begun.
    if sys::is_memory_short() {
        return Err(Errno::NOMEM).call("malloc").map_err(|fault: Fault| fault.at(Step::Relocate));
    }
    let (pair, moved) = prepare(new, facts).map_err(|fault| fault.at(Step::Relocate))?;
    let folios =
        if plan.large_folios { Folios::on(&new.mount, new.dir.as_fd()) } else { Folios::as_they_come() };
    let board = Board::new(plan.threads);
    let mover = moved.mover(facts, plan, progress, &folios, &board, false);
    let mut meta = root;
    // A tmpfs that the kernel made for the initramfs lets everybody write to "/", unless the archive has an entry for it;
    // nobody meant that.
    if facts.initial && facts.rootfs == RootFs::Tmpfs && meta.mode.as_raw_mode() == 0o1777 {
        meta.mode = Mode::from_raw_mode(0o755);
    }
    let meta = DirMeta { meta, flags: moved.flags, merged: false };
    sys::tear(true);
    let _reserve = (facts.machine && plan.tight).then(|| Reserve::release(new.site.proc.as_fd()));
    match walk(&mover, pair, meta, plan.threads, &|| meanwhile(progress)) {
        Ok(()) => Ok(moved),
        Err(broken) => {
            let torn = moved.undo(&new.site.old, &new.dir, root).err();
            Err(Error { torn, ..broken.fault.at(Step::Relocate) })
        }
    }
}

/// Opens both roots, and makes what the move of hard links needs.
fn prepare(new: &NewRoot<'_>, facts: &Facts) -> Result<(Pair, Moved), Fault> {
    let old = &new.site.old;
    let attributes = Attributes {
        xattrs: facts.rootfs != RootFs::Ramfs,
        flags: facts.flags,
        creator: (geteuid().as_raw(), getegid().as_raw()),
    };
    let pair = Pair { old: reopen(old)?, new: reopen(&new.dir)? };
    let links = Links::new(new.dir.as_fd(), old.as_fd())?;
    let flags = attributes.free(old.as_fd()).inspect_err(|_| {
        let _ = links.clear();
    })?;
    Ok((pair, Moved { links, attributes, flags }))
}

fn reopen(dir: &OwnedFd) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
    openat(dir, c".", flags, Mode::empty()).on("openat", b"/")
}

impl Moved {
    /// The mover from the old root to the new; `over` where the new one has directories already.
    fn mover<'a>(
        &'a self,
        facts: &Facts,
        plan: &Plan,
        progress: &'a Progress,
        folios: &'a Folios,
        board: &'a Board,
        over: bool,
    ) -> Mover<'a> {
        Mover {
            attributes: self.attributes,
            holes: if facts.rootfs == RootFs::Ramfs { Holes::PageCache } else { Holes::Seek },
            program: facts.program,
            links: &self.links,
            back: false,
            over,
            wipe: plan.wipe,
            folios,
            board,
            progress,
        }
    }

    fn undo(&self, old: &OwnedFd, new: &OwnedFd, root: Meta) -> Result<(), Fault> {
        undo(old, new, DirMeta { meta: root, flags: self.flags, merged: false }, self.attributes, &self.links)
    }
}

impl Relocated<'_> {
    /// Whether mount points were left in the old root.
    pub(crate) fn kept(&self) -> bool {
        self.progress.kept.load(Ordering::Relaxed) > 0
    }

    /// The times that the root directory is to have.
    pub(crate) fn times(&self) -> Timestamps {
        self.root.times()
    }

    /// Moves everything back.
    pub(crate) fn back(self) -> Result<(), Fault> {
        if self.used_up {
            return Err(Fault::used_up());
        }
        let Some(moved) = &self.moved else { return Ok(()) };
        let site = self.new.site;
        // Without it only the attributes of special files would be missed, which few have.
        let _ = fchdir(&site.proc);
        let mask = umask(Mode::empty());
        let undone = moved.undo(&site.old, &self.new.dir, self.root);
        umask(mask);
        let _ = chdir("/");
        undone
    }
}
