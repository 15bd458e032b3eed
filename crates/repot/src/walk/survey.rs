//! Counts the entries and bytes of a tree, without changing even an access time.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FileType;

use super::{Directory, Entered, Visitor, open, walk};
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
    /// Names of inodes that have more names outside of the tree.
    pub outside: u64,
    /// Devices, fifos and sockets.
    pub special: u64,
    /// Memory used by file contents, in bytes.
    pub bytes: u64,
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
struct Count(Mutex<Vec<Found>>);

/// What one thread has counted.
#[derive(Default)]
struct Found {
    survey: Survey,
    /// Inodes with more than one name: the link count, and the names that were found.
    links: BTreeMap<u64, (u32, u32)>,
}

impl core::ops::AddAssign for Survey {
    fn add_assign(&mut self, other: Survey) {
        self.entries += other.entries;
        self.directories += other.directories;
        self.hard_links += other.hard_links;
        self.outside += other.outside;
        self.special += other.special;
        self.bytes += other.bytes;
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
    // Nothing is allocated while the lock is held: a thread lost in the middle would never release it.
    let count = Count(Mutex::new(Vec::with_capacity(threads as usize + 1)));
    walk(&count, open(root, c".")?, (), threads, &|| ())?;
    let mut survey = Survey::default();
    let mut links = BTreeMap::new();
    for found in count.0.into_inner() {
        survey += found.survey;
        for (inode, (names, seen)) in found.links {
            links.entry(inode).or_insert((names, 0)).1 += seen;
        }
    }
    let outside = links.into_values().filter(|(names, seen)| seen < names);
    survey.outside = outside.map(|(_, seen)| u64::from(seen)).sum();
    Ok(survey)
}

impl Visitor for Count {
    type Dir = OwnedFd;
    type Meta = ();
    type Scratch = Found;
    const REMOVES: bool = false;

    fn enter(&self, dir: &OwnedFd, name: &CStr) -> Result<Entered<Self>, Fault> {
        dir.open(name).map(|dir| Some((dir, ())))
    }

    fn entry(&self, thread: &mut Found, dir: &OwnedFd, name: &CStr, kind: FileType) -> Result<(), Fault> {
        let meta = Meta::read(At::Named(dir.as_fd(), name))?;
        let found = &mut thread.survey;
        found.entries += 1;
        if meta.links > 1 {
            found.hard_links += 1;
            thread.links.entry(meta.inode).or_insert((meta.links, 0)).1 += 1;
        }
        if kind == FileType::RegularFile {
            // Each name counts its share of the inode. The sum is right, and no inode has to be remembered.
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
        thread: &mut Found,
        parent: Option<(&OwnedFd, &CStr)>,
        _: &OwnedFd,
        (): &(),
        _: bool,
    ) -> Result<(), Fault> {
        let below = u64::from(parent.is_some());
        thread.survey.entries += below;
        thread.survey.directories += below;
        Ok(())
    }

    fn done(&self, found: Found) {
        self.0.lock().push(found);
    }
}
