//! The attributes of one entry: read in the old tree, set in the new one.
//!
//! The kernel forces the order. Changing the owner clears set-user-ID bits and capabilities, and writing data
//! clears capabilities, so both come first. Times come after the data. Inode flags come last: an immutable
//! file refuses every other change.

use alloc::ffi::CString;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, IFlags, Mode, Statx, StatxFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, futimens, ioctl_getflags, ioctl_setflags,
    lgetxattr, llistxattr, lsetxattr, makedev, statx, utimensat,
};
use rustix::io::Errno;

use crate::error::{Call, Fault, retry_once};
use crate::skipped::{ACCESS_ACL, Skipped, path_of};

/// An entry, named by its own descriptor or by its name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At<'a> {
    /// A regular file or directory, which can be opened without side effects.
    Open(BorrowedFd<'a>),
    /// Any other entry.
    Named(BorrowedFd<'a>, &'a CStr),
}

impl At<'_> {
    /// The name of the system call, for messages: `open` or `named`.
    fn call(self, open: &'static str, named: &'static str) -> &'static str {
        match self {
            At::Open(_) => open,
            At::Named(..) => named,
        }
    }

    /// Its path, for messages.
    fn path(self) -> Vec<u8> {
        match self {
            At::Open(fd) => path_of(fd, c""),
            At::Named(dir, name) => path_of(dir, name),
        }
    }
}

/// The status of an entry, as statx(2) returns it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) kind: FileType,
    /// The twelve permission bits.
    pub(crate) mode: Mode,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) links: u32,
    /// In bytes, holes included.
    pub(crate) size: u64,
    /// Allocated memory in bytes.
    pub(crate) allocated: u64,
    /// The device number of a device node, as mknod(2) takes it.
    pub(crate) node: u64,
    accessed: Timespec,
    modified: Timespec,
}

impl Meta {
    /// Whether the contents may have changed since `before` was read.
    pub(crate) fn was_written(&self, before: &Meta) -> bool {
        (self.size, self.modified) != (before.size, before.modified)
    }

    /// Reads the status of an entry. Follows no symbolic link and changes no access time.
    pub(crate) fn read(at: At<'_>) -> Result<Meta, Fault> {
        let mask = StatxFlags::BASIC_STATS;
        let status = match at {
            At::Open(fd) => statx(fd, c"", AtFlags::EMPTY_PATH, mask),
            At::Named(dir, name) => statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, mask),
        };
        status.map(|status| Meta::from(&status)).call("statx")
    }

    fn from(status: &Statx) -> Meta {
        let time = |seconds, nanoseconds: u32| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        Meta {
            kind: FileType::from_raw_mode(status.stx_mode.into()),
            mode: Mode::from_bits_truncate(u32::from(status.stx_mode) & 0o7777),
            uid: status.stx_uid,
            gid: status.stx_gid,
            device: (status.stx_dev_major, status.stx_dev_minor),
            inode: status.stx_ino,
            links: status.stx_nlink,
            size: status.stx_size,
            allocated: status.stx_blocks * 512,
            node: makedev(status.stx_rdev_major, status.stx_rdev_minor),
            accessed: time(status.stx_atime.tv_sec, status.stx_atime.tv_nsec),
            modified: time(status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec),
        }
    }

    pub(crate) fn times(&self) -> Timestamps {
        Timestamps { last_access: self.accessed, last_modification: self.modified }
    }
}

/// Changes entries of a directory and keeps its times, also if not everything could be changed.
pub(crate) fn keep_times(
    dir: BorrowedFd<'_>,
    change: &mut dyn FnMut() -> Result<(), Fault>,
) -> Result<(), Fault> {
    let meta = Meta::read(At::Open(dir))?;
    let changed = change();
    retry_once(|| futimens(dir, &meta.times())).on("utimensat", b"/")?;
    changed
}

/// The flags of chattr(1) that tmpfs keeps (since 6.0) and that a user may set.
pub(crate) fn kept_flags() -> IFlags {
    IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NODUMP | IFlags::NOATIME
}

/// The attributes that the old root can hold besides mode, owner and times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    /// Whether the old root has extended attributes. tmpfs keeps them. ramfs does not, but with a security
    /// module each of its inodes has a label.
    pub(crate) xattrs: bool,
    /// Whether the old root keeps inode flags.
    pub(crate) flags: bool,
    /// The owner and group of entries that this process creates.
    pub(crate) creator: (u32, u32),
}

impl Attributes {
    /// Returns the inode flags of an entry, and clears them if they would forbid the move.
    pub(crate) fn clear_flags(&self, fd: BorrowedFd<'_>) -> Result<IFlags, Fault> {
        if !self.flags {
            return Ok(IFlags::empty());
        }
        let flags = ioctl_getflags(fd).call("ioctl FS_IOC_GETFLAGS")? & kept_flags();
        if flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
            ioctl_setflags(fd, IFlags::empty()).call("ioctl FS_IOC_SETFLAGS")?;
        }
        Ok(flags)
    }

    /// Sets inode flags. Must be the last change to an entry.
    pub(crate) fn set_flags(&self, fd: BorrowedFd<'_>, flags: IFlags) -> Result<(), Fault> {
        if flags.is_empty() { Ok(()) } else { ioctl_setflags(fd, flags).call("ioctl FS_IOC_SETFLAGS") }
    }

    /// Reads the capabilities of a file, which truncating or writing it would remove.
    pub(crate) fn capability(&self, file: BorrowedFd<'_>) -> Result<Capability, Fault> {
        let mut value = vec![0; 64];
        if !self.xattrs {
            return Ok(Capability(None));
        }
        match fgetxattr(file, CAPABILITY, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                Ok(Capability(Some(value)))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(Capability(None)),
            Err(error) => Err(error).on("fgetxattr", CAPABILITY.to_bytes()),
        }
    }

    /// Sets the owner, mode and times in `meta` on `to`, and copies the extended attributes of `from`. Those
    /// that the kernel refuses are noted in `skipped`.
    ///
    /// `exact` means that `to` was created with its mode and has not been written to since. On an error the
    /// remaining attributes are still set, and the first fault is returned.
    pub(crate) fn copy(
        &self,
        meta: &Meta,
        from: At<'_>,
        to: At<'_>,
        exact: bool,
        skipped: &Skipped,
    ) -> Result<(), Fault> {
        let mut outcome = Ok(());
        let mut note = |done: Result<(), Fault>| {
            if outcome.is_ok() {
                outcome = done;
            }
        };
        let other_owner = (meta.uid, meta.gid) != self.creator;
        if other_owner {
            note(chown(to, meta));
        }
        let link = meta.kind == FileType::Symlink;
        if !link && (other_owner || !exact || meta.mode.intersects(Mode::SUID | Mode::SGID)) {
            note(chmod(to, meta.mode));
        }
        if self.xattrs {
            let mut no_acl = false;
            let refused = |name: &CStr, errno| {
                skipped.attribute(name.to_bytes(), &to.path(), errno);
                no_acl |= name.to_bytes() == ACCESS_ACL;
            };
            note(copy_xattrs(from, to, refused));
            if no_acl && !link {
                note(chmod(to, meta.mode - Mode::RWXG));
            }
        }
        note(
            match to {
                At::Open(fd) => futimens(fd, &meta.times()),
                At::Named(dir, name) => utimensat(dir, name, &meta.times(), AtFlags::SYMLINK_NOFOLLOW),
            }
            .call("utimensat"),
        );
        outcome
    }
}

const CAPABILITY: &CStr = c"security.capability";

/// The capabilities of a file, as stored (`struct vfs_ns_cap_data`, at most 24 bytes).
#[derive(Debug)]
pub(crate) struct Capability(Option<Vec<u8>>);

impl Capability {
    /// Sets them on a file. Must come after every change that removes them.
    pub(crate) fn restore(&self, file: BorrowedFd<'_>, skipped: &Skipped) -> Result<(), Fault> {
        let Some(value) = &self.0 else { return Ok(()) };
        let to = At::Open(file);
        let refused = |name: &CStr, errno| skipped.attribute(name.to_bytes(), &to.path(), errno);
        set_or_refuse(to, CAPABILITY, value, refused)
    }
}

fn chown(to: At<'_>, meta: &Meta) -> Result<(), Fault> {
    let (uid, gid) = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
    match to {
        At::Open(fd) => fchown(fd, uid, gid),
        At::Named(dir, name) => chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
    }
    .call(to.call("fchown", "fchownat"))
}

fn chmod(to: At<'_>, mode: Mode) -> Result<(), Fault> {
    match to {
        At::Open(fd) => fchmod(fd, mode),
        // This is never a symbolic link, so AT_SYMLINK_NOFOLLOW is not needed.
        At::Named(dir, name) => chmodat(dir, name, mode, AtFlags::empty()),
    }
    .call(to.call("fchmod", "fchmodat"))
}

/// The longest list of names, and the longest value, that the kernel returns, in bytes (XATTR_LIST_MAX,
/// XATTR_SIZE_MAX).
const MAX: usize = 65536;

/// Whether the kernel refuses an attribute, rather than lacking memory for it.
fn is_refusal(errno: Errno) -> bool {
    !matches!(errno, Errno::NOMEM | Errno::NOSPC | Errno::DQUOT | Errno::IO)
}

/// Sets an attribute, at the second try at the latest. Calls `refused` if the kernel does not want it.
fn set_or_refuse(
    to: At<'_>,
    name: &CStr,
    value: &[u8],
    mut refused: impl FnMut(&CStr, Errno),
) -> Result<(), Fault> {
    match retry_once(|| set_xattr(to, name, value)) {
        Err(errno) if is_refusal(errno) => {
            refused(name, errno);
            Ok(())
        }
        set => set.on(to.call("fsetxattr", "lsetxattr"), name.to_bytes()),
    }
}

/// Whether an attribute is the label of a security module. Labels come last: with another label, the policy
/// may refuse every other attribute.
fn is_label(name: &[u8]) -> bool {
    name.starts_with(b"security.") && name != CAPABILITY.to_bytes_with_nul()
}

fn copy_xattrs(from: At<'_>, to: At<'_>, mut refused: impl FnMut(&CStr, Errno)) -> Result<(), Fault> {
    let mut outcome = Ok(());
    let listing = from.call("flistxattr", "llistxattr");
    let mut few = [0; 1024];
    // A small buffer first: most entries have few attributes or none.
    let mut many;
    let names: &[u8] = match list(from, &mut few) {
        Ok(length) => &few[..length],
        Err(Errno::RANGE) => {
            many = vec![0; MAX];
            let length = list(from, &mut many).call(listing)?;
            &many[..length]
        }
        // The file system has no extended attributes.
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error).call(listing),
    };
    let mut value = Vec::new();
    let names = || names.split_inclusive(|byte| *byte == 0);
    let labels = names().filter(|name| is_label(name));
    for name in names().filter(|name| !is_label(name)).chain(labels) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        value.resize(MAX, 0);
        let copied = match get(from, name, &mut value) {
            // SELinux lists its label before it has a policy, when there is none to read.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            read => read
                .on(from.call("fgetxattr", "lgetxattr"), name.to_bytes())
                .and_then(|length| set_or_refuse(to, name, &value[..length], &mut refused)),
        };
        if outcome.is_ok() {
            outcome = copied;
        }
    }
    outcome
}

/// Whether an open entry has extended attributes.
pub(crate) fn has_xattrs(entry: BorrowedFd<'_>) -> bool {
    matches!(list(At::Open(entry), &mut [0]), Ok(1..) | Err(Errno::RANGE))
}

/// The path of an entry that must not be opened, for system calls that take only paths. The working directory
/// must be the root of a procfs. (setxattrat came with 6.13.)
fn through_proc(dir: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).unwrap_or_default()
}

fn list(at: At<'_>, names: &mut [u8]) -> Result<usize, Errno> {
    match at {
        At::Open(fd) => flistxattr(fd, names),
        At::Named(dir, name) => llistxattr(through_proc(dir, name), names),
    }
}

fn get(at: At<'_>, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
    match at {
        At::Open(fd) => fgetxattr(fd, name, value),
        At::Named(dir, entry) => lgetxattr(through_proc(dir, entry), name, value),
    }
}

/// Sets an extended attribute.
pub(crate) fn set_xattr(at: At<'_>, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    match at {
        At::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
        At::Named(dir, entry) => lsetxattr(through_proc(dir, entry), name, value, XattrFlags::empty()),
    }
}
