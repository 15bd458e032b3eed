//! Brings the tree into the new root: moves or unpacks it. After a bind mount the tree is already there.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fd::AsFd;
use rustix::fs::Mode;
#[cfg(not(feature = "payload"))]
use rustix::io::Errno;
use rustix::process::{chdir, fchdir, umask};

use crate::carry::{Lifted, Mounts};
#[cfg(not(feature = "payload"))]
use crate::error::Fault;
use crate::error::{Call, Error, Step, Torn, retry_once};
use crate::facts::Facts;
use crate::metadata::{At, Meta};
use crate::mover::{self, Arrived, Undo};
use crate::newroot::{self, NewRoot};
use crate::plan::{Method, Plan};
use crate::progress::Progress;
use crate::site::Site;

/// The tree is in the new root.
#[derive(Debug)]
pub(crate) struct Relocated<'s> {
    pub(crate) new: NewRoot<'s>,
    pub(crate) mounts: Mounts<'s>,
    pub(crate) arrived: Arrived,
    pub(crate) progress: Progress,
}

/// Brings the tree into the new root. `meanwhile` is called once a second with the progress.
///
/// # Errors
/// What failed, with the path. The tree and the mounts are then back in the old root, unless the error is
/// torn.
pub(crate) fn relocate<'s>(
    lifted: Lifted<'s>,
    facts: &Facts,
    plan: &Plan,
    meanwhile: &dyn Fn(&Progress),
) -> Result<Relocated<'s>, Error> {
    let progress = Progress::default();
    match bring(&lifted.new, facts, plan, &progress, meanwhile) {
        Ok(arrived) => {
            let Lifted { new, mounts } = lifted;
            Ok(Relocated { new, mounts, arrived, progress })
        }
        Err(error) => Err(lifted.put_back(error)),
    }
}

fn bring(
    new: &NewRoot<'_>,
    facts: &Facts,
    plan: &Plan,
    progress: &Progress,
    meanwhile: &dyn Fn(&Progress),
) -> Result<Arrived, Error> {
    let root = Meta::read(At::Open(new.site.old.as_fd())).map_err(|fault| fault.at(Step::Relocate))?;
    match plan.method {
        Method::Move => in_procfs(new, || mover::run(new, facts, plan, root, progress, meanwhile)),
        #[cfg(feature = "payload")]
        Method::Payload => in_procfs(new, || crate::unpack::run(new, facts, plan, root, progress, meanwhile)),
        #[cfg(not(feature = "payload"))]
        Method::Payload => {
            Err(Errno::OPNOTSUPP).call("payload").map_err(|fault: Fault| fault.at(Step::Payload))
        }
        Method::Bind | Method::Stay => {
            let (undo, inits) = (Some(Undo::nothing()), plan.inits.clone());
            Ok(Arrived { undo, inits, warnings: Vec::new() })
        }
    }
}

/// Runs `work` with a procfs as the working directory, for the calls that take only paths (see `metadata`),
/// and with umask 0, so that every entry gets exactly the mode that it is created with.
fn in_procfs(new: &NewRoot<'_>, work: impl FnOnce() -> Result<Arrived, Error>) -> Result<Arrived, Error> {
    fchdir(&new.site.proc).call("fchdir").map_err(|fault| fault.at(Step::Relocate))?;
    let original_umask = umask(Mode::empty());
    let arrived = work();
    umask(original_umask);
    // Retried once: past the point of no return a failure would cost the system.
    let left = retry_once(|| chdir("/")).on("chdir", b"/");
    let arrived = arrived?;
    match left {
        Ok(()) => Ok(arrived),
        Err(fault) => Err(Error { torn: roll_back(&arrived, new).err(), ..fault.at(Step::Relocate) }),
    }
}

/// Moves what other processes have created in the old root since the last pass. The new root is `/` now.
/// Returns warnings.
pub(crate) fn collect(site: &Site, facts: &Facts, plan: &Plan) -> Vec<String> {
    let collected = newroot::switched(site).and_then(|new| {
        let root = Meta::read(At::Open(new.dir.as_fd()))?;
        fchdir(&site.proc).call("fchdir")?;
        let original_umask = umask(Mode::empty());
        let collected = mover::collect(&new, facts, plan, root);
        umask(original_umask);
        let _ = chdir("/");
        collected
    });
    collected.unwrap_or_else(|fault| Vec::from([format!("{}", fault.at(Step::Relocate))]))
}

/// Rolls the move back.
fn roll_back(arrived: &Arrived, new: &NewRoot<'_>) -> Result<(), Torn> {
    let undo = arrived.undo.as_ref().ok_or(Torn::Spent)?;
    if undo.is_nothing() {
        return Ok(());
    }
    // Without procfs, only extended attributes of special files would be lost, and few have any.
    let _ = fchdir(&new.site.proc);
    let original_umask = umask(Mode::empty());
    let undone = undo.run(new);
    umask(original_umask);
    let _ = chdir("/");
    undone.map_err(Torn::Undo)
}

impl Relocated<'_> {
    /// Rolls the move back.
    pub(crate) fn roll_back(&self) -> Result<(), Torn> {
        roll_back(&self.arrived, &self.new)
    }
}
