//! Counts what is in a tree, without changing so much as an access time.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, openat};

use crate::error::{Call, Fault};
use crate::metadata::{At, Meta};
use crate::sys::{Event, Mutex};
use crate::walk::{Visitor, walk};

/// What is in a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Names, directories included, the root not.
    pub entries: u64,
    /// Of these, directories.
    pub directories: u64,
    /// Names of entries, other than directories, that have several.
    pub hard_links: u64,
    /// Devices, fifos and sockets.
    pub special: u64,
    /// What the contents of the files take in memory, in bytes.
    pub bytes: u64,
    /// The largest file, in bytes, holes included.
    pub largest: u64,
    /// Files with holes.
    pub sparse: u64,
    /// Symbolic links so long that a tmpfs gives them a page of their own.
    pub long_symlinks: u64,
}

/// The longest target that tmpfs keeps in the inode (`SHORT_SYMLINK_LEN` less the final zero).
const SHORT_SYMLINK: u64 = 127;

/// Each thread counts by itself: numbers that several threads change at once would cost as much as the rest.
#[derive(Default)]
struct Count {
    bell: Event,
    total: Mutex<Survey>,
}

impl core::ops::AddAssign for Survey {
    fn add_assign(&mut self, other: Survey) {
        self.entries += other.entries;
        self.directories += other.directories;
        self.hard_links += other.hard_links;
        self.special += other.special;
        self.bytes += other.bytes;
        self.largest = self.largest.max(other.largest);
        self.sparse += other.sparse;
        self.long_symlinks += other.long_symlinks;
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOATIME)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Counts what is below `root`, which is walked across no mount if it is the root of a mount that was cloned alone.
///
/// # Errors
/// The call that failed, with the path.
pub fn survey(root: BorrowedFd<'_>, threads: u32) -> Result<Survey, Fault> {
    let count = Count::default();
    let root = openat(root, c".", DIRECTORY, Mode::empty()).call("openat")?;
    walk(&count, root, (), threads, &|| ()).map_err(|broken| broken.fault)?;
    Ok(count.total.into_inner())
}

impl Visitor for Count {
    type Dir = OwnedFd;
    type Meta = ();
    type Scratch = Survey;
    const REMOVES: bool = false;
    const DESCRIPTORS: usize = 1;

    fn bell(&self) -> &Event {
        &self.bell
    }

    fn list(dir: &OwnedFd) -> BorrowedFd<'_> {
        dir.as_fd()
    }

    fn parent(&self, dir: &OwnedFd) -> Result<OwnedFd, Fault> {
        openat(dir, c"..", DIRECTORY, Mode::empty()).call("openat")
    }

    fn enter(&self, dir: &OwnedFd, name: &CStr) -> Result<Option<(OwnedFd, ())>, Fault> {
        openat(dir, name, DIRECTORY, Mode::empty()).call("openat").map(|dir| Some((dir, ())))
    }

    fn entry(&self, found: &mut Survey, dir: &OwnedFd, name: &CStr, kind: FileType) -> Result<(), Fault> {
        let meta = Meta::read(At::Named(dir.as_fd(), name))?;
        found.entries += 1;
        found.hard_links += u64::from(meta.links > 1);
        if kind == FileType::RegularFile {
            // Each name of a file stands for its share, so that the sum is right without remembering files.
            found.bytes += meta.allocated.div_ceil(u64::from(meta.links.max(1)));
            found.largest = found.largest.max(meta.size);
            found.sparse += u64::from(meta.allocated < meta.size);
        } else if kind == FileType::Symlink {
            found.long_symlinks += u64::from(meta.size > SHORT_SYMLINK);
        } else {
            found.special += 1;
        }
        Ok(())
    }

    fn leave(
        &self,
        found: &mut Survey,
        parent: Option<(&OwnedFd, &CStr)>,
        _: &OwnedFd,
        (): &(),
        _: bool,
    ) -> Result<(), Fault> {
        let below = u64::from(parent.is_some());
        found.entries += below;
        found.directories += below;
        Ok(())
    }

    fn done(&self, found: Survey) {
        *self.total.lock() += found;
    }
}
