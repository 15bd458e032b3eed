//! Prepares a file system for a move: programs, a tree, mounts below it, and a record of all that.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_bind, mount_change,
    mount_remount, move_mount, open_tree,
};

use crate::mounts::{self, Table};
use crate::namespace::{view, with_private_mounts};
use crate::programs;
use crate::trees::{Fs, Plant, plant};
use repot_snapshot::{Snapshot, snapshot};

/// The file system during preparation, mounted in a private mount namespace.
#[derive(Debug)]
pub struct Stage {
    root: OwnedFd,
    at: PathBuf,
    fs: Fs,
}

/// The prepared file system, and its state before the move.
#[derive(Debug)]
pub struct Prepared {
    /// The root mount with everything mounted below it, detached.
    pub tree: OwnedFd,
    /// The old root alone, without the mounts on top, to inspect it after the move.
    pub view: OwnedFd,
    /// The tree before.
    pub before: Snapshot,
    /// The mount table before.
    pub mounts: Table,
    /// Each mounted file system alone and its tree before, by mount point. Of a stack, the topmost mount.
    pub mounted: BTreeMap<String, (OwnedFd, Snapshot)>,
}

/// Creates an `fs`, lets `build` fill it, and records it.
///
/// # Panics
/// If a step fails.
pub fn prepare(fs: Fs, build: impl FnOnce(&Stage) + Send) -> Prepared {
    prepare_with(fs, &[], build)
}

/// The same with mount options for the file system.
///
/// # Panics
/// If a step fails.
pub fn prepare_with(fs: Fs, options: &[(&str, &str)], build: impl FnOnce(&Stage) + Send) -> Prepared {
    with_private_mounts(|| {
        let root = new(fs, options).expect("a new file system");
        let at = PathBuf::from(STAGING);
        attach(&root, &at).expect("attached");
        let stage = Stage { root, at, fs };
        build(&stage);
        stage.record().expect("recorded")
    })
}

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory of the machine to mount over in a private namespace: one that no test needs.
pub(crate) const STAGING: &str = "/sys";

/// A new detached file system with strict access times, as on the initial root.
pub(crate) fn new(fs: Fs, options: &[(&str, &str)]) -> io::Result<OwnedFd> {
    let context = fsopen(fs.name(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("mode", "0755")].iter().chain(options) {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    let strict = MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, strict)?)
}

fn attach(mount: &OwnedFd, at: &Path) -> io::Result<()> {
    Ok(move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

impl Stage {
    /// The top of the tree.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A path in the tree, valid during preparation.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.at.join(relative)
    }

    /// Installs repot as `/init`, the helper as `/sbin/init`, and a configuration.
    ///
    /// # Panics
    /// If that fails.
    pub fn install(&self, config: &str) {
        self.program("init", programs::repot_init());
        self.program("sbin/init", programs::helper());
        self.file("etc/repot.conf", config.as_bytes());
    }

    /// Copies a program of the machine into the tree.
    ///
    /// # Panics
    /// If that fails.
    pub fn program(&self, to: &str, from: &Path) {
        self.file(to, &fs::read(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())));
        fs::set_permissions(self.path(to), fs::Permissions::from_mode(0o755)).expect("executable");
    }

    /// Writes a file, and creates its directories.
    ///
    /// # Panics
    /// If that fails.
    pub fn file(&self, to: &str, content: &[u8]) {
        let path = self.path(to);
        fs::create_dir_all(path.parent().expect("below the top")).expect("directory");
        let mut file = fs::File::create(&path).expect("file");
        file.write_all(content).expect("write");
        // The same time in every stage, so that two stages can be compared.
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_600_000_000)).expect("times");
    }

    /// Creates a directory and its parents.
    ///
    /// # Panics
    /// If that fails.
    pub fn dir(&self, path: &str) {
        fs::create_dir_all(self.path(path)).expect("directory");
    }

    /// Creates a symlink.
    ///
    /// # Panics
    /// If that fails.
    pub fn link(&self, path: &str, target: &str) {
        symlink(target, self.path(path)).expect("symlink");
    }

    /// Plants a tree.
    ///
    /// # Panics
    /// If that fails.
    pub fn plant(&self, tree: &[Plant]) {
        plant(&self.root, self.fs, tree);
    }

    /// Mounts a new file system at `path` and returns its top.
    ///
    /// # Panics
    /// If that fails.
    pub fn mount(&self, fs: Fs, path: &str) -> OwnedFd {
        self.dir(path);
        self.mount_on(fs, &self.path(path))
    }

    /// The same on an existing directory, by its path on the stage.
    ///
    /// # Panics
    /// If that fails.
    pub fn mount_on(&self, fs: Fs, path: &Path) -> OwnedFd {
        let mount = new(fs, &[("source", "a test")]).expect("a file system to mount");
        attach(&mount, path).expect("mounted");
        mount
    }

    /// Mounts one file or directory of the tree over another.
    ///
    /// # Panics
    /// If that fails.
    pub fn bind(&self, from: &str, to: &str) {
        mount_bind(self.path(from), self.path(to)).expect("bound");
    }

    /// Changes the flags of the mount at `path`.
    ///
    /// # Panics
    /// If that fails.
    pub fn flags(&self, path: &str, flags: MountFlags) {
        mount_remount(self.path(path), MountFlags::BIND | flags, c"").expect("remounted");
    }

    /// Changes the propagation of the mount at `path`.
    ///
    /// # Panics
    /// If that fails.
    pub fn propagate(&self, path: &str, flags: MountPropagationFlags) {
        mount_change(self.path(path), flags).expect("propagation");
    }

    /// Makes the mount at `path` shared. For the root, see [`crate::sandbox::Setup::shared`].
    ///
    /// # Panics
    /// If that fails.
    pub fn share(&self, path: &str) {
        mount_change(self.path(path), MountPropagationFlags::SHARED).expect("shared");
    }

    fn record(self) -> io::Result<Prepared> {
        let table = mounts::read("/proc/thread-self/mountinfo")?;
        let mounts = mounts::below(&table, STAGING);
        let mut mounted = BTreeMap::new();
        for (path, stack) in mounts.iter().filter(|(path, _)| *path != "/") {
            // A mount that another one hides cannot be reached by path.
            let there = self.at.join(mounts::path(&path[1..]));
            let Ok(mount) = openat(CWD, there, PATH, Mode::empty()) else { continue };
            let stat = statx(&mount, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
            let directory = stat.stx_mode & 0o170_000 == 0o040_000;
            if directory && stack.last().is_some_and(|top| top.id == stat.stx_mnt_id) {
                let alone = view(&mount)?;
                let before = snapshot(&alone)?;
                mounted.insert(path.clone(), (alone, before));
            }
        }
        let view = view(&self.root)?;
        let whole = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(&self.root, "", whole)?;
        let before = snapshot(&view)?;
        Ok(Prepared { tree, view, before, mounts, mounted })
    }
}

/// A NUL-terminated string of a text without NUL.
pub(crate) fn text(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}
