//! Removes repot's own files from the final root once they have served, so that the real init finds the root
//! that was packed: the markers, the attribute manifests, the modules, and `/init`.
//!
//! Nothing but the modules is removed before the root is complete. What another run of repot could still use
//! stays: the markers of a truncated image, and manifests that the file system does not accept.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, renameat, unlinkat};
use rustix::process::{chdir, fchdir};

use crate::error::{Call, Fault, Step};
use crate::facts::{Facts, RootFs};
use crate::metadata::{At, Meta, keep_times};
use crate::options::Keep;
use crate::plan::Method;
use crate::site::Site;
use crate::walk::open;
use crate::{manifest, marker, modules, newroot};

/// The name that the kernel executes.
pub(crate) const INIT: &CStr = c"/init";
/// The image's own init, where the tool puts it aside.
pub(crate) const PUT_ASIDE: &CStr = c"/init.real";

/// Whether the root is the one that this boot keeps and nobody else owns: the new root, or the initramfs.
pub(crate) fn is_final(facts: &Facts, method: Method) -> bool {
    arrives(method) || facts.initial
}

fn arrives(method: Method) -> bool {
    matches!(method, Method::Move | Method::Payload)
}

/// The size of this program, if it is the `/init` of the old root.
pub(crate) fn own_init(site: &Site, facts: &Facts) -> Option<u64> {
    let meta = Meta::read(At::Named(site.old.as_fd(), c"init")).ok()?;
    (facts.program == Some((meta.device, meta.inode))).then_some(meta.size)
}

/// Applies the manifests to a root that was left in place, and removes what has served. Returns warnings.
pub(crate) fn remove(site: &Site, facts: &Facts, method: Method, keep: Keep) -> Vec<String> {
    let (mut warnings, mut served) = (Vec::new(), true);
    if !arrives(method) && !facts.manifests.is_empty() {
        served = facts.rootfs == RootFs::Tmpfs;
        warnings = in_place(site, facts);
    }
    if keep == Keep::All || !is_final(facts, method) {
        return warnings;
    }
    let removed = if arrives(method) {
        newroot::switched(site).and_then(|new| remove_from(&new.dir, facts, served))
    } else {
        remove_from(&site.old, facts, served).and_then(|()| modules::remove(&site.old))
    };
    warnings.extend(removed.err().map(kept));
    warnings
}

/// The warning about a file of repot that could not be removed.
pub(crate) fn kept(fault: Fault) -> String {
    format!("{}; a file of repot stays in /", fault.at(Step::Handoff))
}

/// Applies the manifests where the tree is, if its file system keeps attributes. Returns warnings.
fn in_place(site: &Site, facts: &Facts) -> Vec<String> {
    let root = site.old.as_fd();
    if facts.rootfs == RootFs::Tmpfs {
        if let Err(fault) = fchdir(&site.proc).call("fchdir") {
            return Vec::from([format!("{}", fault.at(Step::Relocate))]);
        }
        let warnings = manifest::apply(root, &facts.manifests);
        let _ = chdir("/");
        return warnings;
    }
    let entries = manifest::count(root, &facts.manifests);
    let why = match facts.rootfs {
        RootFs::Ramfs => "/ stays a ramfs, which has none",
        RootFs::Tmpfs | RootFs::Other(_) => "/ is not in memory, so nothing in it is changed",
    };
    Vec::from([format!("extended attributes of {entries} entries skipped: {why}")])
}

fn remove_from(root: &OwnedFd, facts: &Facts, served: bool) -> Result<(), Fault> {
    let mut names = Vec::new();
    // The first is a promise that the second keeps, so it goes first.
    if marker::missing(facts.unpacking.begun, facts.unpacking.end.as_ref()).is_none() {
        names.extend([c".repot-begin", c".repot-end"]);
    }
    if served {
        names.extend(facts.manifests.iter().map(CString::as_c_str));
    }
    keep_times(root.as_fd(), &mut || names.iter().try_for_each(|name| remove_file(root.as_fd(), name)))
}

/// Removes a regular file. Nothing else has one of these names because of us.
fn remove_file(root: BorrowedFd<'_>, name: &CStr) -> Result<(), Fault> {
    if is(root, name, &|meta| meta.kind == FileType::RegularFile) {
        unlinkat(root, name, AtFlags::empty()).on("unlinkat", name.to_bytes())?;
    }
    Ok(())
}

fn is(root: BorrowedFd<'_>, name: &CStr, fits: &dyn Fn(&Meta) -> bool) -> bool {
    Meta::read(At::Named(root, name)).is_ok_and(|meta| fits(&meta))
}

/// Removes `/init`, a program of this size. If the image's own init is beside it, and the first to be
/// executed, that gets the name: true.
pub(crate) fn vacate_init(size: u64, chain: Option<&CStr>, inits: &[CString]) -> Result<bool, Fault> {
    // Whatever else has the name now is not ours.
    if !is(CWD, INIT, &|meta| meta.kind == FileType::RegularFile && meta.size == size) {
        return Ok(false);
    }
    let root = open(CWD, c"/")?;
    let returns = chain == Some(PUT_ASIDE)
        && inits.first().is_some_and(|init| init.as_c_str() == PUT_ASIDE)
        && is(CWD, PUT_ASIDE, &|meta| matches!(meta.kind, FileType::RegularFile | FileType::Symlink));
    keep_times(root.as_fd(), &mut || {
        if returns {
            return renameat(CWD, PUT_ASIDE, CWD, INIT).on("renameat", PUT_ASIDE.to_bytes());
        }
        remove_file(CWD, INIT)
    })?;
    Ok(returns)
}
