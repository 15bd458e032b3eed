//! Hard links: the first name of an inode is moved, the others are linked to it.
//!
//! The moved inode gets one more name, its old inode number, in a directory of the new root that exists
//! during the move only. So no path has to be remembered, and undoing a move finds the inodes where it needs
//! them. What is remembered is one pair of inode numbers for each inode with several names: the one thing
//! that grows with the tree.

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

/// Old inode number to new inode; `None` while the first name is on its way.
type Table = BTreeMap<u64, Option<NewInode>>;

/// An inode in the new tree that further names are linked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewInode {
    /// Its number.
    pub(crate) inode: u64,
    /// The flags that it gets when nothing will be linked to it any more: the kernel links no immutable file.
    pub(crate) flags: IFlags,
}

#[derive(Debug)]
pub(crate) struct Links {
    root: OwnedFd,
    name: CString,
    staging: OwnedFd,
    table: Mutex<Table>,
    known: Known,
    /// Whether a thread was lost, maybe with a first name on its way.
    abandoned: AtomicBool,
    changed: Event,
}

/// A bit for each inode number that may be in the table, so that most files need not look into it, which only
/// one thread can at a time. Several numbers share a bit.
#[derive(Debug)]
struct Known(Vec<AtomicU64>);

impl Known {
    fn none() -> Known {
        Known((0..1024).map(|_| AtomicU64::new(0)).collect())
    }

    fn place(&self, inode: u64) -> Option<(&AtomicU64, u64)> {
        let word = usize::try_from(inode / 64 % 1024).ok()?;
        Some((self.0.get(word)?, 1 << (inode % 64)))
    }

    fn note(&self, inode: u64) {
        if let Some((word, bit)) = self.place(inode) {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    fn maybe(&self, inode: u64) -> bool {
        self.place(inode).is_none_or(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }
}

/// What is to be done with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Move it: it is the only name.
    Only,
    /// Move it, then say so with [`Links::moved`] or [`Links::gave_up`].
    First,
    /// Link it.
    Again,
}

/// The name of an inode in the staging directory.
fn key(inode: u64) -> CString {
    CString::new(format!("{inode:x}")).unwrap_or_default()
}

impl Links {
    /// Makes the staging directory in `root`, under a name that `other` does not have.
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
                known: Known::none(),
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
        if links == 1 && !self.known.maybe(inode) {
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
                    self.known.note(inode);
                    return Ok(Claim::First);
                }
            }
            drop(table);
            self.changed.wait(seen);
        }
    }

    /// Lets nobody wait any longer.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.changed.notify();
    }

    /// Stages the first name, which has arrived as `name` in `dir`.
    pub(crate) fn stage(&self, inode: u64, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Fault> {
        linkat(dir, name, &self.staging, key(inode), AtFlags::empty()).call("linkat")
    }

    /// The first name has been moved and has become `new`: lets the others be linked.
    pub(crate) fn moved(&self, inode: u64, new: NewInode) {
        self.table.lock().insert(inode, Some(new));
        self.known.note(inode);
        self.changed.notify();
    }

    /// The first name could not be moved, unless [`Links::moved`] has said otherwise.
    pub(crate) fn gave_up(&self, inode: u64) {
        let mut table = self.table.lock();
        if table.get(&inode) == Some(&None) {
            table.remove(&inode);
            let _ = unlinkat(&self.staging, key(inode), AtFlags::empty());
        }
        drop(table);
        self.changed.notify();
    }

    /// Makes `name` in `dir` a further name of the inode.
    pub(crate) fn link(&self, inode: u64, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        linkat(&self.staging, key(inode), dir, name, AtFlags::empty())
    }

    /// The staging directory; a name in it is the old inode number.
    pub(crate) fn staging(&self) -> (BorrowedFd<'_>, impl Fn(u64) -> CString) {
        (self.staging.as_fd(), key)
    }

    /// Old inode numbers, and the inodes that they have become.
    pub(crate) fn pairs(&self) -> Vec<(u64, NewInode)> {
        self.table.lock().iter().filter_map(|(old, new)| new.map(|new| (*old, new))).collect()
    }

    /// Forgets an inode, whose flags will then not be set.
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

    /// Removes the staging directory, and sets the flags that had to wait.
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
