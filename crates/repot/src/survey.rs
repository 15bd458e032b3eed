//! Counts what is in a tree, without changing so much as an access time.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, openat};

use crate::error::{Call, Fault};
use crate::metadata::{At, Meta};
use crate::sys::Event;
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

#[derive(Default)]
struct Count {
    bell: Event,
    entries: AtomicU64,
    directories: AtomicU64,
    hard_links: AtomicU64,
    special: AtomicU64,
    bytes: AtomicU64,
    largest: AtomicU64,
    sparse: AtomicU64,
    long_symlinks: AtomicU64,
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
    Ok(Survey {
        entries: count.entries.into_inner(),
        directories: count.directories.into_inner(),
        hard_links: count.hard_links.into_inner(),
        special: count.special.into_inner(),
        bytes: count.bytes.into_inner(),
        largest: count.largest.into_inner(),
        sparse: count.sparse.into_inner(),
        long_symlinks: count.long_symlinks.into_inner(),
    })
}

impl Visitor for Count {
    type Dir = OwnedFd;
    type Meta = ();
    type Scratch = ();
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
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.directories.fetch_add(1, Ordering::Relaxed);
        openat(dir, name, DIRECTORY, Mode::empty()).call("openat").map(|dir| Some((dir, ())))
    }

    fn entry(&self, (): &mut (), dir: &OwnedFd, name: &CStr, kind: FileType) -> Result<(), Fault> {
        let meta = Meta::read(At::Named(dir.as_fd(), name))?;
        self.entries.fetch_add(1, Ordering::Relaxed);
        if meta.links > 1 {
            self.hard_links.fetch_add(1, Ordering::Relaxed);
        }
        if kind == FileType::RegularFile {
            // Each name of a file stands for its share, so that the sum is right without remembering files.
            self.bytes.fetch_add(meta.allocated.div_ceil(u64::from(meta.links.max(1))), Ordering::Relaxed);
            self.largest.fetch_max(meta.size, Ordering::Relaxed);
            self.sparse.fetch_add(u64::from(meta.allocated < meta.size), Ordering::Relaxed);
        } else if kind == FileType::Symlink {
            self.long_symlinks.fetch_add(u64::from(meta.size > SHORT_SYMLINK), Ordering::Relaxed);
        } else {
            self.special.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn leave(
        &self,
        (): &mut (),
        _: Option<(&OwnedFd, &CStr)>,
        _: &OwnedFd,
        (): &(),
        _: bool,
    ) -> Result<(), Fault> {
        Ok(())
    }
}
