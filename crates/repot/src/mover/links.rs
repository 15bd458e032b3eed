//! Hard links: the first name of an inode is moved, and the others are linked to it.
//!
//! The first name to arrive is also linked as `.repot-links/<old inode number>` in the new root; later names
//! are linked from there. The directory is removed when the move ends. No paths are kept in memory, and a
//! rollback finds the inodes in the same place. The table of old and new inode numbers, with one entry per
//! inode with several names, is the only state that grows with the tree.

use alloc::collections::BTreeMap;
use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, IFlags, Mode, OFlags, ioctl_setflags, linkat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::error::{Call, Fault};
use crate::sys::{Event, Mutex};

/// Maps old inode numbers to new inodes; `None` while the first name is being moved.
type Table = BTreeMap<u64, Option<NewInode>>;

/// An inode in the new tree that other names are linked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewInode {
    pub(crate) inode: u64,
    /// The inode flags to set when no more names will be linked: the kernel does not link to an immutable
    /// file.
    pub(crate) flags: IFlags,
}

/// The hard links of one move.
#[derive(Debug)]
pub(crate) struct Links {
    root: OwnedFd,
    /// The name of the staging directory.
    name: CString,
    staging: OwnedFd,
    table: Mutex<Table>,
    filter: InodeFilter,
    /// Whether a worker was lost, possibly while it moved a first name.
    abandoned: AtomicBool,
    /// Notified when the table changes.
    changed: Event,
}

/// A Bloom filter with one hash: one bit per inode number that may be in the table. Most files need not look
/// into the table, which only one thread can do at a time. Numbers that are equal modulo 65536 share a bit.
#[derive(Debug)]
struct InodeFilter(Vec<AtomicU64>);

impl InodeFilter {
    fn new() -> InodeFilter {
        InodeFilter((0..1024).map(|_| AtomicU64::new(0)).collect())
    }

    fn bit(&self, inode: u64) -> Option<(&AtomicU64, u64)> {
        let word = usize::try_from(inode / 64 % 1024).ok()?;
        Some((self.0.get(word)?, 1 << (inode % 64)))
    }

    fn insert(&self, inode: u64) {
        if let Some((word, bit)) = self.bit(inode) {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    fn may_contain(&self, inode: u64) -> bool {
        self.bit(inode).is_none_or(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }
}

/// How to move a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Move it: it is the only name.
    Only,
    /// Move it, then call [`Links::moved`] or [`Links::give_up`].
    First,
    /// Link it.
    Again,
}

/// The name of an inode in the staging directory.
fn key(inode: u64) -> CString {
    CString::new(format!("{inode:x}")).unwrap_or_default()
}

impl Links {
    /// Makes the staging directory in `root`, under a name that does not exist in `other`.
    pub(crate) fn new(root: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<Links, Fault> {
        let taken = |name: &CStr| statat(other, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let mut name = CString::from(c".repot-links");
        let mut next = 0;
        loop {
            if !taken(&name) {
                match mkdirat(root, &name, Mode::RWXU) {
                    Err(Errno::EXIST) => {}
                    made => break made.on("mkdirat", name.to_bytes())?,
                }
            }
            next += 1;
            name = CString::new(format!(".repot-links{next}")).unwrap_or_default();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(root, &name, flags, Mode::empty()).on("openat", name.to_bytes());
        let kept = rustix::io::fcntl_dupfd_cloexec(root, 0).call("fcntl");
        match (opened, kept) {
            (Ok(staging), Ok(root)) => Ok(Links {
                root,
                name,
                staging,
                table: Mutex::new(Table::new()),
                filter: InodeFilter::new(),
                abandoned: AtomicBool::new(false),
                changed: Event::new(),
            }),
            (Err(fault), _) | (_, Err(fault)) => {
                let _ = unlinkat(root, &name, AtFlags::REMOVEDIR);
                Err(fault)
            }
        }
    }

    /// Says what to do with a name of `inode`, which has `links` names by now. Waits where another thread
    /// moves it.
    ///
    /// # Errors
    /// Where that thread was lost.
    pub(crate) fn claim(&self, inode: u64, links: u32) -> Result<Claim, Fault> {
        if links == 1 && !self.filter.may_contain(inode) {
            return Ok(Claim::Only);
        }
        loop {
            let seen = self.changed.seen();
            let mut table = self.table.lock();
            match table.get(&inode) {
                Some(Some(_)) => return Ok(Claim::Again),
                Some(None) if self.abandoned.load(Ordering::Acquire) => {
                    return Err(Errno::CANCELED).call("futex");
                }
                Some(None) => {}
                None if links == 1 => return Ok(Claim::Only),
                None => {
                    table.insert(inode, None);
                    self.filter.insert(inode);
                    return Ok(Claim::First);
                }
            }
            drop(table);
            self.changed.wait(seen);
        }
    }

    /// Wakes all waiting threads for good, because a worker was lost.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.changed.notify();
    }

    /// Stages the first name, which has arrived as `name` in `dir`.
    pub(crate) fn stage(&self, inode: u64, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Fault> {
        linkat(dir, name, &self.staging, key(inode), AtFlags::empty()).call("linkat")
    }

    /// Records that the first name has moved and that its inode is now `new`. Others may be linked then.
    pub(crate) fn moved(&self, inode: u64, new: NewInode) {
        self.table.lock().insert(inode, Some(new));
        self.filter.insert(inode);
        self.changed.notify();
    }

    /// Records that the first name could not be moved, unless [`Links::moved`] was called.
    pub(crate) fn give_up(&self, inode: u64) {
        let mut table = self.table.lock();
        if table.get(&inode) == Some(&None) {
            table.remove(&inode);
            let _ = unlinkat(&self.staging, key(inode), AtFlags::empty());
        }
        drop(table);
        self.changed.notify();
    }

    /// The number of the new inode that names of the old `inode` are linked to.
    pub(crate) fn new_inode(&self, inode: u64) -> Option<u64> {
        self.table.lock().get(&inode).copied().flatten().map(|new| new.inode)
    }

    /// Links `name` in `dir` to the staged inode.
    pub(crate) fn link(&self, inode: u64, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        linkat(&self.staging, key(inode), dir, name, AtFlags::empty())
    }

    /// The staging directory, and the function that names an old inode in it.
    pub(crate) fn staging(&self) -> (BorrowedFd<'_>, impl Fn(u64) -> CString) {
        (self.staging.as_fd(), key)
    }

    /// Pairs of old inode number and new inode, for all inodes that have moved.
    pub(crate) fn pairs(&self) -> Vec<(u64, NewInode)> {
        self.table.lock().iter().filter_map(|(old, new)| new.map(|new| (*old, new))).collect()
    }

    /// Drops an inode from the table. Its flags will not be set.
    pub(crate) fn forget(&self, inode: u64) -> Result<(), Fault> {
        self.table.lock().remove(&inode);
        self.unstage(inode)
    }

    fn unstage(&self, inode: u64) -> Result<(), Fault> {
        match unlinkat(&self.staging, key(inode), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).call("unlinkat"),
        }
    }

    /// Removes the staging directory and sets the inode flags that had to wait.
    pub(crate) fn clear(&self) -> Result<(), Fault> {
        for (inode, new) in &mut *self.table.lock() {
            let Some(NewInode { flags, .. }) = new else { continue };
            if flags.is_empty() {
                self.unstage(*inode)?;
                continue;
            }
            let read = OFlags::RDONLY | OFlags::NOATIME | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&self.staging, key(*inode), read, Mode::empty()).call("openat")?;
            self.unstage(*inode)?;
            ioctl_setflags(&file, *flags).call("ioctl FS_IOC_SETFLAGS")?;
            *flags = IFlags::empty();
        }
        match unlinkat(&self.root, &self.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).on("unlinkat", self.name.to_bytes()),
        }
    }
}
