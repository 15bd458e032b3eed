//! Looks for entries beside a payload that a digest of the payload does not cover.
//!
//! They would end up in the new root, over the payload or beside it. So with a digest only these may exist:
//! the running program, the markers, the payload itself, the modules that its index names, the configuration,
//! and what the kernel's built-in initramfs has. `unpack` checks what is in the directory of the payload.

use alloc::borrow::ToOwned;
use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Dir, FileType, Mode, OFlags, makedev, openat};
use rustix::io::read;
use sha2::{Digest, Sha256};

use crate::display::Quoted;
use crate::error::{Call, Fault, retry_once};
use crate::marker::{BEGIN, END};
use crate::metadata::{At, Meta};
use crate::payload::DIRECTORY;
use crate::payload::index::Module;
use crate::site::Site;
use crate::walk::open;

/// Entries that are listed at most; one more than a message shows.
const LISTED: usize = 9;
const MODULES: &CStr = c".repot-modules";

/// The paths of entries that a digest does not cover, quoted. An unknown directory stands for everything in
/// it.
pub(super) fn look(
    site: &Site,
    program: Option<((u32, u32), u64)>,
    covered: &[Module],
) -> Result<Vec<String>, Fault> {
    let mut outside = Vec::new();
    modules(site, covered, &mut outside)?;
    // Anything else that is called `etc`, `dev` or `root` is listed itself.
    for directory in [c".", c"etc", c"dev", c"root"] {
        if directory != c"." && !is_directory(&site.old, directory) {
            continue;
        }
        let known = |name: &CStr, meta: &Meta| match directory.to_bytes() {
            b"." => in_root(name, meta, program),
            b"etc" => name == c"repot.conf" && is_plain(meta),
            b"dev" => name == c"console" && is_console(meta),
            _ => false,
        };
        list(&open(&site.old, directory)?, directory, known, &mut outside)?;
    }
    Ok(outside)
}

/// Lists the kernel modules that are not those of the index.
fn modules(site: &Site, covered: &[Module], outside: &mut Vec<String>) -> Result<(), Fault> {
    if !is_directory(&site.old, MODULES) {
        return Ok(());
    }
    let all = open(&site.old, MODULES)?;
    let mut releases = Vec::new();
    let release = |name: &CStr, meta: &Meta| {
        meta.kind == FileType::Directory && {
            releases.push(name.to_owned());
            true
        }
    };
    list(&all, MODULES, release, outside)?;
    for release in releases {
        let named = CString::new([MODULES.to_bytes(), b"/", release.to_bytes()].concat()).unwrap_or_default();
        let folder = open(&all, &release)?;
        let known = |name: &CStr, meta: &Meta| {
            let path = [release.to_bytes(), b"/", name.to_bytes()].concat();
            let listed = covered.iter().find(|module| module.path == path);
            is_plain(meta) && listed.is_some_and(|module| digest(&folder, name) == Some(module.digest))
        };
        list(&folder, &named, known, outside)?;
    }
    Ok(())
}

/// The SHA-256 of a file; `None` if it cannot be read.
fn digest(folder: &OwnedFd, name: &CStr) -> Option<[u8; 32]> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(folder, name, flags, Mode::empty()).ok()?;
    let (mut sum, mut part) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        match retry_once(|| read(&file, &mut part[..])).ok()? {
            0 => return Some(sum.finalize().into()),
            count => sum.update(&part[..count]),
        }
    }
}

fn is_directory(root: &OwnedFd, name: &CStr) -> bool {
    Meta::read(At::Named(root.as_fd(), name)).is_ok_and(|meta| meta.kind == FileType::Directory)
}

/// Whether an entry of the root directory may exist. A hard link of the running program is not the program.
fn in_root(name: &CStr, meta: &Meta, program: Option<((u32, u32), u64)>) -> bool {
    let kind = match name.to_bytes() {
        b"etc" | b"dev" | b"root" => FileType::Directory,
        name if name == DIRECTORY.as_bytes() || name == MODULES.to_bytes() => FileType::Directory,
        name if name == BEGIN.as_bytes() || name == END.as_bytes() => return is_plain(meta),
        _ => return meta.links == 1 && program == Some((meta.device, meta.inode)),
    };
    meta.kind == kind
}

/// A file that gives nobody rights: with `keep=all` these files stay in the new root.
fn is_plain(meta: &Meta) -> bool {
    meta.kind == FileType::RegularFile && !meta.mode.intersects(Mode::SUID | Mode::SGID)
}

/// The kernel's console, or the empty file that an unpacked container has in its place.
fn is_console(meta: &Meta) -> bool {
    let device = meta.kind == FileType::CharacterDevice && meta.node == makedev(5, 1);
    device || (is_plain(meta) && meta.size == 0)
}

fn list(
    from: &OwnedFd,
    directory: &CStr,
    mut known: impl FnMut(&CStr, &Meta) -> bool,
    outside: &mut Vec<String>,
) -> Result<(), Fault> {
    let named = || directory.to_bytes();
    let entries = rustix::io::fcntl_dupfd_cloexec(from, 0).and_then(Dir::new).on("getdents64", named())?;
    for entry in entries {
        let entry = entry.on("getdents64", named())?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || outside.len() == LISTED {
            continue;
        }
        let meta = Meta::read(At::Named(from.as_fd(), name))?;
        if !known(name, &meta) {
            let above = if directory == c"." { Vec::new() } else { [named(), b"/"].concat() };
            outside.push(format!("{}", Quoted(&[&above, name.to_bytes()].concat())));
        }
    }
    Ok(())
}
