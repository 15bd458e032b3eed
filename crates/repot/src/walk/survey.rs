//! Counts the entries and bytes of a tree, without changing even an access time.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FileType;

use super::{Directory, Entered, Visitor, has_vanished, open, walk};
use crate::error::Fault;
use crate::metadata::{At, Meta};
use crate::sys::Mutex;

/// The contents of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Names, directories included, the root excluded.
    pub entries: u64,
    /// Directories among them.
    pub directories: u64,
    /// Names of inodes with more than one name, directories excluded.
    pub hard_links: u64,
    /// Devices, fifos and sockets.
    pub special: u64,
    /// Memory used by file contents, in bytes.
    pub bytes: u64,
    /// The contents of files without their holes, in bytes, as [`Progress`](crate::progress::Progress) counts
    /// them.
    pub contents: u64,
    /// The size of the largest file, in bytes, holes included.
    pub largest: u64,
    /// Files with holes.
    pub sparse: u64,
    /// Symbolic links whose target is too long for the inode, so that a tmpfs stores it in a page.
    pub long_symlinks: u64,
}

/// The longest target that tmpfs keeps in the inode, in bytes (`SHORT_SYMLINK_LEN` less the NUL).
const SHORT_SYMLINK: u64 = 127;

/// Each thread counts in its scratch: counters shared by threads would cost as much as everything else.
struct Count(Mutex<Survey>);

impl core::ops::AddAssign for Survey {
    fn add_assign(&mut self, other: Survey) {
        self.entries += other.entries;
        self.directories += other.directories;
        self.hard_links += other.hard_links;
        self.special += other.special;
        self.bytes += other.bytes;
        self.contents += other.contents;
        self.largest = self.largest.max(other.largest);
        self.sparse += other.sparse;
        self.long_symlinks += other.long_symlinks;
    }
}

/// Counts the tree below `root` with `threads` threads. If `root` belongs to a clone of a single mount,
/// mounts below it are not crossed.
///
/// # Errors
/// The call that failed, with the path.
pub fn survey(root: BorrowedFd<'_>, threads: u32) -> Result<Survey, Fault> {
    let count = Count(Mutex::new(Survey::default()));
    walk(&count, open(root, c".")?, (), threads, &|| ())?;
    Ok(count.0.into_inner())
}

impl Visitor for Count {
    type Dir = OwnedFd;
    type Meta = ();
    type Scratch = Survey;

    fn enter(&self, dir: &OwnedFd, name: &CStr) -> Result<Entered<Self>, Fault> {
        match dir.open(name) {
            Err(fault) if has_vanished(fault.errno) => Ok(None),
            opened => opened.map(|dir| Some((dir, ()))),
        }
    }

    fn entry(&self, found: &mut Survey, dir: &OwnedFd, name: &CStr, kind: FileType) -> Result<(), Fault> {
        let meta = match Meta::read(At::Named(dir.as_fd(), name)) {
            Err(fault) if has_vanished(fault.errno) => return Ok(()),
            read => read?,
        };
        found.entries += 1;
        found.hard_links += u64::from(meta.links > 1);
        if kind == FileType::RegularFile {
            // Each name counts its share of the inode. The sum is right, and no inode has to be remembered.
            let links = u64::from(meta.links.max(1));
            found.bytes += meta.allocated.div_ceil(links);
            found.contents += meta.allocated.min(meta.size) / links;
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
        *self.0.lock() += found;
    }
}
