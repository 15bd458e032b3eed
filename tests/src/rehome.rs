//! One whole run: prepare, start, wait for the helper, inspect the result.
use std::os::fd::OwnedFd;

use crate::mounts::{Table, carried};
use crate::namespace::host_mount_table;
use crate::sandbox::{End, Running, Setup};
use crate::stage::{Prepared, Stage, prepare};
use crate::trees::{Fs, READ_AT_BOOT};
use repot_snapshot::{Rules, Snapshot, difference, snapshot};

/// A run that reached the helper.
#[derive(Debug)]
pub struct Rehomed {
    /// The state before.
    pub prepared: Prepared,
    /// The helper, still running.
    pub running: Running,
    /// Its root now, alone.
    pub root: OwnedFd,
    /// Its tree now.
    pub after: Snapshot,
    /// Its mount table now.
    pub mounts: Table,
}

/// What is compared after a boot: everything except the access times of files that the boot itself reads, and
/// repot's own files, which are gone once they have served.
pub const AFTER_BOOT: Rules =
    Rules { read: &READ_AT_BOOT, gone: &["init", ".repot-begin", ".repot-end"], ..Rules::EXACT };

/// Prepares an `fs` with the programs, `mode=move` and what `build` adds, and runs `/init` on it.
///
/// # Panics
/// If the helper does not run, or the machine's mount table changed.
pub fn rehome(fs: Fs, build: impl FnOnce(&Stage) + Send) -> Rehomed {
    let prepared = prepare(fs, |stage| {
        stage.install("mode=move\n");
        build(stage);
    });
    run(prepared, &Setup::default())
}

/// Runs `/init` on a prepared file system.
///
/// # Panics
/// If the helper does not run, or the machine's mount table changed.
#[must_use]
pub fn run(prepared: Prepared, setup: &Setup) -> Rehomed {
    let host = host_mount_table();
    let mut running = prepared.start(setup);
    let end = running.wait();
    assert_eq!(end, End::Init("ready".into()), "it printed:\n{}", running.log());
    let root = running.root();
    let after = snapshot(&root).expect("a snapshot of the new root");
    let mounts = running.mounts();
    assert_eq!(host, host_mount_table(), "the mount table of the machine");
    Rehomed { prepared, running, root, after, mounts }
}

impl Rehomed {
    /// Checks everything that must hold after every move.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn check(&self) {
        self.check_moved();
        self.check_tree();
        self.check_old_root_is_empty();
        self.check_mounts();
    }

    /// Checks that the root is another file system, and a tmpfs.
    ///
    /// # Panics
    /// If it is not.
    pub fn check_moved(&self) {
        let (before, after) = (&self.prepared.mounts["/"][0].what, &self.mounts["/"][0].what);
        assert_ne!(before.device, after.device, "it did not move:\n{}", self.running.log());
        assert_eq!(after.fstype, "tmpfs");
    }

    /// Checks that the tree is unchanged in every attribute.
    ///
    /// # Panics
    /// If it is not.
    pub fn check_tree(&self) {
        let difference = difference(&self.prepared.before, &self.after, AFTER_BOOT);
        assert!(difference.is_empty(), "{difference}\nit printed:\n{}", self.running.log());
    }

    /// Checks that the old root is empty.
    ///
    /// # Panics
    /// If it is not.
    pub fn check_old_root_is_empty(&self) {
        let left = snapshot(&self.prepared.view).expect("a snapshot of the old root");
        let left: Vec<_> = left.keys().map(|path| path.escape_ascii().to_string()).collect();
        assert_eq!(left, [""], "left in the old root");
    }

    /// Checks that every mount is in its place with its contents, and that there is no other.
    ///
    /// # Panics
    /// If it is not so.
    pub fn check_mounts(&self) {
        assert_eq!(carried(&self.prepared.mounts), carried(&self.mounts), "mounts before and after");
        assert_eq!(self.mounts["/"].len(), 1, "mounts on the root: {:?}", self.mounts["/"]);

        for (path, (_, before)) in &self.prepared.mounted {
            let after = snapshot(self.running.mounted(path)).expect("a snapshot of a mount");
            // What the boot reads is in a bind mount of the root too.
            let table = &self.prepared.mounts;
            let own = table[path].last().is_some_and(|top| top.what.device == table["/"][0].what.device);
            let difference = difference(before, &after, if own { AFTER_BOOT } else { Rules::EXACT });
            assert!(difference.is_empty(), "in the mount at {path}:\n{difference}");
        }
    }
}
