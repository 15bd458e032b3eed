//! Finds the manifests of a root and applies them to its tree.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, ResolveFlags, StatxFlags, XattrFlags, chmod, fstat, openat, openat2,
    setxattr, statx,
};
use rustix::io::{Errno, read};

use super::{FILE, Line, STAMP, is_name, line, same_stamp, stamp, time};
use crate::error::{Call, Fault, Step, What, retry_once};
use crate::skipped::{ACCESS_ACL, Skipped};

/// The longest line: a name, and a value of 64 KiB in hexadecimal.
const LINE: usize = 2 * 65536 + 1024;

/// The limit of a path in one call, its NUL included (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// No path of a manifest leads out of the root.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// The manifests in a root directory, the oldest first, and their size in bytes.
pub(crate) fn list(root: BorrowedFd<'_>) -> Result<(Vec<CString>, u64), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
    let (mut names, mut times, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in openat(root, c".", flags, Mode::empty()).and_then(Dir::new)? {
        let entry = entry?;
        if is_name(entry.file_name().to_bytes()) {
            let status = statx(root, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
            // The kernel has written each when it unpacked its segment.
            let written = (status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec);
            let place = times.iter().take_while(|time| **time <= written).count();
            times.insert(place, written);
            names.insert(place, CString::from(entry.file_name()));
            bytes += status.stx_size;
        }
    }
    Ok((names, bytes))
}

/// Applies the manifests in `root` to the tree below it. The working directory must be the root of a procfs.
///
/// Returns a warning for each line that could not be applied.
pub(crate) fn apply(root: BorrowedFd<'_>, manifests: &[CString]) -> Vec<String> {
    let skipped = Skipped::default();
    let mut replaced = 0;
    for name in manifests {
        if let Err(fault) = apply_one(root, name, &skipped, &mut replaced) {
            skipped.note(format!("{fault}"));
        }
    }
    if replaced > 0 {
        skipped.note(format!(
            "extended attributes of {replaced} entries skipped: the entries were replaced after they were packed"
        ));
    }
    skipped.warnings(Step::Relocate)
}

/// The number of entries that the manifests in `root` name.
pub(crate) fn count(root: BorrowedFd<'_>, manifests: &[CString]) -> u64 {
    let mut entries = 0;
    for manifest in manifests {
        if let Ok(file) = file(root, manifest) {
            let _ = lines(&file, &mut |_, text| entries += u64::from(text.starts_with(FILE)));
        }
    }
    entries
}

fn file(root: BorrowedFd<'_>, manifest: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat2(root, manifest, flags, Mode::empty(), RESOLVE)
}

fn apply_one(
    root: BorrowedFd<'_>,
    manifest: &CStr,
    skipped: &Skipped,
    replaced: &mut u64,
) -> Result<(), Fault> {
    let file = match file(root, manifest) {
        Err(Errno::NOENT) => return Ok(()),
        file => file.on("openat2", manifest.to_bytes())?,
    };
    let modified = fstat(&file).on("fstat", manifest.to_bytes())?.st_mtime;
    let times = time(manifest.to_bytes()) == Some(modified);
    let mut place: Option<(Vec<u8>, OwnedFd)> = None;
    let read = lines(&file, &mut |number, text| match line(text) {
        Some(Line::Blank) => {}
        Some(Line::Path(path)) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            place = match open(root, &path, flags) {
                Ok(fd) => Some((path, fd)),
                Err(errno) => {
                    skipped.note(format!("{}", Fault { what: What::Call("openat2"), path, errno }));
                    None
                }
            };
        }
        Some(Line::Attribute(name, value)) if name == STAMP => {
            if place.as_ref().is_some_and(|(_, fd)| !is_stamped(fd, &value, times)) {
                *replaced += 1;
                place = None;
            }
        }
        Some(Line::Attribute(name, value)) => {
            if let Some((path, fd)) = &place {
                set(path, fd, name, &value, skipped);
            }
        }
        None => {
            let manifest = manifest.to_bytes().escape_ascii();
            skipped.note(format!("{manifest}:{number}: not a line of getfattr --dump, skipped"));
        }
    });
    read.on("read", manifest.to_bytes())
}

/// Whether the file is the one that was packed. In doubt it is.
#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
fn is_stamped(fd: &OwnedFd, packed: &[u8], times: bool) -> bool {
    let Ok(status) = fstat(fd) else { return true };
    let found = stamp(status.st_mode as u32, status.st_size as u64, status.st_mtime as i64);
    same_stamp(packed, found.as_bytes(), times)
}

/// Sets one attribute.
fn set(path: &[u8], fd: &OwnedFd, name: Vec<u8>, value: &[u8], skipped: &Skipped) {
    // fsetxattr(2) refuses a descriptor with O_PATH, the only one that any kind of entry can be opened with.
    // The path of the descriptor in procfs works.
    let through = format!("self/fd/{}", fd.as_raw_fd());
    let name = CString::new(name).unwrap_or_default();
    let set = || setxattr(&through, &name, value, XattrFlags::empty());
    let Err(errno) = retry_once(set) else { return };
    skipped.attribute(name.to_bytes(), path, errno);
    if name.to_bytes() == ACCESS_ACL
        && let Ok(status) = fstat(fd)
        && let Err(errno) = chmod(&through, Mode::from_raw_mode(status.st_mode) - Mode::RWXG)
    {
        skipped.note(format!("{}", Fault { what: What::Call("chmod"), path: path.to_vec(), errno }));
    }
}

/// Opens `path` below `root`, which may be longer than the kernel takes at once.
fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let (mut at, mut rest): (Option<OwnedFd>, &[u8]) = (None, path);
    loop {
        let dir = at.as_ref().map_or(root, AsFd::as_fd);
        if rest.len() < PATH_MAX {
            return openat2(dir, rest, flags, Mode::empty(), RESOLVE);
        }
        let slash = rest[..PATH_MAX].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        at = Some(openat2(dir, &rest[..slash], flags, Mode::empty(), RESOLVE)?);
        rest = &rest[slash + 1..];
    }
}

/// Calls `visit` with each line and its number. The buffer grows to the longest line.
fn lines(file: &OwnedFd, visit: &mut dyn FnMut(usize, &[u8])) -> Result<(), Errno> {
    let mut buffer = vec![0; 4096];
    let (mut filled, mut number) = (0, 0);
    loop {
        if filled == buffer.len() {
            if filled >= LINE {
                return Err(Errno::TOOBIG);
            }
            buffer.resize(filled * 2, 0);
        }
        let count = match read(file, &mut buffer[filled..]) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        filled += count;
        let mut start = 0;
        while let Some(length) = buffer[start..filled].iter().position(|byte| *byte == b'\n') {
            number += 1;
            visit(number, &buffer[start..start + length]);
            start += length + 1;
        }
        if count == 0 {
            if start < filled {
                visit(number + 1, &buffer[start..filled]);
            }
            return Ok(());
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}
