//! The tree moves to the new root; for a bind, which shows the same tree, there is nothing to move.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, Timestamps, openat};
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
use crate::undo::undo;
use crate::walk::walk;

/// The tree is in the new root.
#[derive(Debug)]
pub struct Relocated<'s> {
    pub(crate) new: NewRoot<'s>,
    moved: Option<Moved>,
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
    if new.method != Method::Move {
        return Ok(Relocated { new, moved: None, root, progress, warnings: Vec::new() });
    }
    // For the calls that take only paths, see metadata. Everything is created with exactly the mode that is asked for.
    fchdir(&new.site.proc).call("fchdir").map_err(|fault| fault.at(Step::Relocate))?;
    let mask = umask(Mode::empty());
    let outcome = go(&new, facts, plan, root, &progress, meanwhile);
    let warnings = if outcome.is_ok() { manifest::apply(new.dir.as_fd()) } else { Vec::new() };
    umask(mask);
    let here = chdir("/").on("chdir", b"/");
    match outcome {
        Ok(moved) => {
            let relocated = Relocated { new, moved: Some(moved), root, progress, warnings };
            match here {
                Ok(()) => Ok(relocated),
                Err(fault) => {
                    let torn = relocated.back().is_err();
                    Err(Error { torn, ..fault.at(Step::Relocate) })
                }
            }
        }
        Err(error) => Err(error),
    }
}

fn go(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    root: Meta,
    progress: &Progress,
    meanwhile: &dyn Fn(&Progress),
) -> Result<Moved, Error> {
    let site = new.site;
    let attributes = Attributes {
        xattrs: facts.rootfs != RootFs::Ramfs,
        flags: facts.flags,
        creator: (geteuid().as_raw(), getegid().as_raw()),
    };
    let prepare = || {
        let pair = Pair { old: reopen(&site.old)?, new: reopen(&new.dir)? };
        let links = Links::new(new.dir.as_fd(), site.old.as_fd())?;
        let flags = attributes.free(site.old.as_fd()).inspect_err(|_| {
            let _ = links.clear();
        })?;
        Ok((pair, Moved { links, attributes, flags }))
    };
    let (pair, moved) = prepare().map_err(|fault: Fault| fault.at(Step::Relocate))?;
    let folios =
        if plan.large_folios { Folios::on(&new.mount, new.dir.as_fd()) } else { Folios::as_they_come() };
    let holes = if facts.rootfs == RootFs::Ramfs { Holes::PageCache } else { Holes::Seek };
    let mover = Mover {
        attributes,
        holes,
        program: facts.program,
        links: &moved.links,
        back: false,
        wipe: plan.wipe,
        folios: &folios,
        board: &Board::new(plan.threads),
        progress,
    };
    let mut meta = root;
    // A tmpfs that the kernel made for the initramfs lets everybody write to "/", unless the archive has an entry for it;
    // nobody meant that.
    if facts.initial && facts.rootfs == RootFs::Tmpfs && meta.mode.as_raw_mode() == 0o1777 {
        meta.mode = Mode::from_raw_mode(0o755);
    }
    let meta = DirMeta { meta, flags: moved.flags };
    match walk(&mover, pair, meta, plan.threads, &|| meanwhile(progress)) {
        Ok(()) => Ok(moved),
        Err(broken) => {
            let torn = moved.undo(&site.old, &new.dir, root).is_err();
            Err(Error { torn, ..broken.fault.at(Step::Relocate) })
        }
    }
}

fn reopen(dir: &OwnedFd) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
    openat(dir, c".", flags, Mode::empty()).on("openat", b"/")
}

impl Moved {
    fn undo(&self, old: &OwnedFd, new: &OwnedFd, root: Meta) -> Result<(), Fault> {
        undo(old, new, DirMeta { meta: root, flags: self.flags }, self.attributes, &self.links)
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
