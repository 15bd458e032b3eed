//! Directories of the initramfs whose name in the payload is not a directory.
//!
//! A symbolic link that leads to a directory stays: the contents of the directory go where the link leads, as
//! they would if the initramfs had been written onto the unpacked root. They are renamed in the old root,
//! before the mover runs, so no memory is needed. An empty directory replaces nothing. `overrides` removes
//! anything else that is in the way.

use alloc::collections::VecDeque;
use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, mkdirat, openat2, readlinkat_raw,
    renameat_with, unlinkat,
};
use rustix::io::Errno;

use crate::display::Quoted;
use crate::error::{Call, Fault, retry_once};
use crate::metadata::{At, Meta};
use crate::mover::Holes;
use crate::mover::UNPACKED;
use crate::sys::Mutex;
use crate::walk::sweep::{remove, sweep};
use crate::walk::{Directory, Entered, Pair, Visitor, open, walk};

/// Symbolic links that are followed at most, as in the kernel.
const LINKS: u32 = 40;
/// The longest path that the kernel takes, in bytes (PATH_MAX less the NUL).
const MAX_PATH: usize = 4095;

/// Renames the contents of such directories to where links of the payload lead. Returns what was merged.
///
/// With `wipe`, the contents of entries that exist under both paths are overwritten before they are freed.
pub(super) fn reconcile(old: &OwnedFd, new: &OwnedFd, wipe: Option<Holes>) -> Result<Vec<String>, Fault> {
    let mut warnings = Vec::new();
    // What was renamed may lie below a link in turn, so this ends with a walk that finds nothing to do.
    loop {
        let visitor = Reconcile { old, new, wipe, merged: Mutex::new((false, Vec::new())) };
        walk(&visitor, Place { pair: Pair::reopen(old, new)?, path: Vec::new() }, (), 1, &|| ())?;
        let (changed, merged) = visitor.merged.into_inner();
        warnings.extend(merged);
        if !changed {
            return Ok(warnings);
        }
    }
}

/// A directory in both roots, and its path.
struct Place {
    pair: Pair,
    path: Vec<u8>,
}

impl Directory for Place {
    const DESCRIPTORS: usize = Pair::DESCRIPTORS;
    fn listed(&self) -> BorrowedFd<'_> {
        self.pair.listed()
    }
    fn open(&self, name: &CStr) -> Result<Self, Fault> {
        let path =
            if name == c".." { parent(&self.path).to_vec() } else { join(&self.path, name.to_bytes()) };
        Ok(Place { pair: self.pair.open(name)?, path })
    }
}

struct Reconcile<'a> {
    old: &'a OwnedFd,
    new: &'a OwnedFd,
    wipe: Option<Holes>,
    /// Whether anything changed, and warnings.
    merged: Mutex<(bool, Vec<String>)>,
}

impl Visitor for Reconcile<'_> {
    type Dir = Place;
    type Meta = ();
    type Scratch = ();

    fn entry(&self, (): &mut (), _: &Place, _: &CStr, _: FileType) -> Result<(), Fault> {
        Ok(())
    }

    fn enter(&self, dir: &Place, name: &CStr) -> Result<Entered<Self>, Fault> {
        let kind = match Meta::read(At::Named(dir.pair.new.as_fd(), name)) {
            Ok(meta) => meta.kind,
            Err(fault) if fault.errno == Errno::NOENT => return Ok(None),
            Err(fault) => return Err(fault),
        };
        if kind == FileType::Directory {
            return dir.open(name).map(|dir| Some((dir, ())));
        }
        let path = join(&dir.path, name.to_bytes());
        let removed = || unlinkat(&dir.pair.old, name, AtFlags::REMOVEDIR).is_ok();
        let mut changed = removed();
        if !changed
            && kind == FileType::Symlink
            && let Some(target) = resolve(self.new.as_fd(), &path)?
            && let Some(into) = make(self.old, &target)?
        {
            let from = open(&dir.pair.old, name)?;
            let renames = Renames { renamed: Mutex::new(false), wipe: self.wipe };
            walk(&renames, Pair { old: from, new: into }, (), 1, &|| ())?;
            changed = renames.renamed.into_inner() | removed();
            self.merged.lock().1.push(format!(
                "the directory {} of the initramfs was merged into {}, where the payload has a symbolic link",
                Quoted(&path),
                Quoted(&target)
            ));
        }
        self.merged.lock().0 |= changed;
        Ok(None)
    }
}

/// Renames everything of one directory of the old root into another one. What exists there stays.
struct Renames {
    renamed: Mutex<bool>,
    wipe: Option<Holes>,
}

impl Renames {
    /// Renames an entry. Returns whether the target exists.
    fn rename(&self, dir: &Pair, name: &CStr) -> Result<bool, Fault> {
        match retry_once(|| renameat_with(&dir.old, name, &dir.new, name, RenameFlags::NOREPLACE)) {
            Ok(()) => {
                *self.renamed.lock() = true;
                Ok(false)
            }
            Err(Errno::EXIST) => Ok(true),
            // A mount point, or an immutable entry: it stays, and then the directory replaces the link.
            Err(Errno::BUSY | Errno::PERM) => Ok(false),
            Err(errno) => Err(errno).call("renameat2"),
        }
    }
}

impl Visitor for Renames {
    type Dir = Pair;
    type Meta = ();
    type Scratch = ();

    fn removes(&self) -> bool {
        true
    }

    fn entry(&self, (): &mut (), dir: &Pair, name: &CStr, _: FileType) -> Result<(), Fault> {
        if self.rename(dir, name)? {
            remove(&dir.old, name, self.wipe)?;
        }
        Ok(())
    }

    fn enter(&self, dir: &Pair, name: &CStr) -> Result<Entered<Self>, Fault> {
        if !self.rename(dir, name)? {
            return Ok(None);
        }
        if Meta::read(At::Named(dir.new.as_fd(), name))?.kind == FileType::Directory {
            return dir.open(name).map(|dir| Some((dir, ())));
        }
        sweep(&open(&dir.old, name)?, self.wipe)?;
        unlinkat(&dir.old, name, AtFlags::REMOVEDIR).call("unlinkat").map(|()| None)
    }

    fn leave(
        &self,
        (): &mut (),
        parent: Option<(&Pair, &CStr)>,
        _: &Pair,
        (): &(),
        complete: bool,
    ) -> Result<(), Fault> {
        match parent {
            Some((dir, name)) if complete => match unlinkat(&dir.old, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY | Errno::BUSY) => Ok(()),
                removed => removed.call("unlinkat"),
            },
            _ => Ok(()),
        }
    }
}

/// Opens a directory of the old root, and creates what is missing. The payload has it, and gives it its
/// attributes. `None` if the old root has something else there, which replaces the directory of the payload.
fn make(old: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>, Fault> {
    let mut at = open(old, c".")?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let name = CString::new(name).unwrap_or_default();
        match retry_once(|| mkdirat(&at, &name, UNPACKED)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).on("mkdirat", path),
        }
        at = match open(&at, &name) {
            Ok(next) => next,
            Err(Fault { errno: Errno::NOTDIR | Errno::LOOP, .. }) => return Ok(None),
            Err(fault) => return Err(fault.on(path.to_vec())),
        };
    }
    Ok(Some(at))
}

/// The path of the directory to which a path of the new root leads, without any symbolic link; `None` if it
/// leads nowhere or to something else. `..` at the root is the root, as it will be when the root is `/`.
fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let split =
        |path: &[u8]| -> Vec<Vec<u8>> { path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect() };
    let mut waiting = VecDeque::from(split(path));
    let (mut done, mut links) = (Vec::new(), 0);
    while let Some(name) = waiting.pop_front() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                done.truncate(parent(&done).len());
                continue;
            }
            _ => {}
        }
        let here = join(&done, &name);
        if here.len() > MAX_PATH {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        // O_PATH with O_NOFOLLOW opens a link itself, which RESOLVE_NO_SYMLINKS allows at the end of a path.
        let entry = match openat2(root, &here[..], flags, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => return Ok(None),
            opened => opened.on("openat2", &here)?,
        };
        let kind = Meta::read(At::Open(entry.as_fd()))?.kind;
        if kind == FileType::Directory {
            done = here;
            continue;
        }
        if kind != FileType::Symlink || links == LINKS {
            return Ok(None);
        }
        links += 1;
        let mut target = [0; 4096];
        let length = readlinkat_raw(&entry, c"", &mut target[..]).on("readlinkat", &here)?;
        if target[0] == b'/' {
            done.clear();
        }
        split(&target[..length]).into_iter().rev().for_each(|name| waiting.push_front(name));
    }
    Ok(Some(done))
}

fn parent(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}
