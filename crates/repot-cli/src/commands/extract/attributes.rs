//! Setting owner, mode, extended attributes and times of an open entry.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, fchmod, fchown, fgetxattr, fstat, futimens};

use super::xattr::xattr;
use super::yard::Unwritable;
use crate::report::name::shown;
use crate::source::notes::Notes;
use crate::tree::{Attributes, access};

const OWNER: &str = "its owner could not be set, which needs root, and set-ID bits are dropped";

/// What holds for every entry below a directory.
#[derive(Debug)]
pub(super) struct Below {
    /// The path of the directory, for messages.
    path: String,
    /// The owner that new entries get by themselves. Such an entry gets the mode that it is created with.
    creator: Option<(u32, u32)>,
}

impl Below {
    /// For the directory `root` with this path. With `fresh`, this run has created it.
    pub(super) fn new(root: impl AsFd, path: String, fresh: bool) -> rustix::io::Result<Below> {
        let root = root.as_fd();
        let stat = fstat(root)?;
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        // The directory shows what becomes of an owner and a mode here. An access list that new entries
        // inherit changes their modes.
        let plain =
            fresh && (stat.st_uid, stat.st_gid) == own && matches!(stat.st_mode & 0o7777, 0o700 | 0o755);
        let inherits = || fgetxattr(root, "system.posix_acl_default", &mut [0; 0]).is_ok();
        Ok(Below { path, creator: Some(own).filter(|_| plain && !inherits()) })
    }

    /// Whether a new entry has its owner already.
    pub(super) fn is_own(&self, attributes: &Attributes) -> bool {
        self.creator == Some((attributes.uid, attributes.gid))
    }

    /// The mode to create a file with. Nobody gets more than in the end.
    pub(super) fn mode(&self, attributes: &Attributes) -> Mode {
        let permissions = if self.is_own(attributes) { attributes.permissions & 0o777 } else { 0o600 };
        Mode::from_raw_mode(permissions)
    }

    pub(super) fn unwritable(&self, call: &str, path: &[u8], error: &dyn std::fmt::Display) -> Unwritable {
        Unwritable(format!("{call} {}/{}: {error}", self.path, shown(path)))
    }

    /// Notes that an owner could not be set.
    pub(super) fn note_owner(notes: &mut Notes, path: &[u8]) {
        notes.add(OWNER, path);
    }

    /// Sets all attributes of an open file or directory. With `created`, it has the mode that [`Below::mode`]
    /// returned.
    pub(super) fn set(
        &self,
        fd: BorrowedFd<'_>,
        path: &[u8],
        attributes: &Attributes,
        created: bool,
        notes: &mut Notes,
    ) -> Result<(), Unwritable> {
        let Attributes { uid, gid, mut permissions, .. } = *attributes;
        if !self.is_own(attributes) && fchown(fd, id(uid, Uid::from_raw), id(gid, Gid::from_raw)).is_err() {
            Below::note_owner(notes, path);
            permissions &= 0o1777;
        }
        let change = |permissions: u32| {
            let changed = fchmod(fd, Mode::from_raw_mode(permissions & 0o7777));
            changed.map_err(|errno| self.unwritable("fchmod", path, &errno))
        };
        if !created || self.mode(attributes).as_raw_mode() != permissions {
            change(permissions)?;
        }
        for (name, value) in &attributes.xattrs {
            let set = xattr(notes, fd, path, name, value);
            if !set && name == access::ACL {
                // Without the list, the group bits would be its mask.
                change(attributes.archived_permissions() & permissions)?;
            }
        }
        futimens(fd, &times(attributes)).map_err(|errno| self.unwritable("futimens", path, &errno))
    }
}

/// A number that the kernel takes for "leave it" is none that an owner can have.
pub(super) fn id<T>(number: u32, of: impl FnOnce(u32) -> T) -> Option<T> {
    (number != u32::MAX).then(|| of(number))
}

pub(super) fn times(attributes: &Attributes) -> Timestamps {
    let time = Timespec { tv_sec: attributes.mtime.into(), tv_nsec: attributes.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
