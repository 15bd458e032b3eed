//! Makes room in the new root for what else the initramfs holds: that overrides the payload.
//!
//! A directory that is in both stays, and is merged by the mover. Whatever else of the payload has the name of an entry of the
//! old root is removed, with all that is below it.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::error::{Call, Fault};
use crate::mover::Pair;
use crate::sweep::sweep;
use crate::sys::Event;
use crate::walk::{Visitor, walk};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOATIME)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes from `new` what is in the way of `old`.
pub(super) fn make(old: &OwnedFd, new: &OwnedFd) -> Result<(), Fault> {
    let open = |dir| openat(dir, c".", DIRECTORY, Mode::empty()).on("openat", b"/");
    let pair = Pair { old: open(old)?, new: open(new)? };
    walk(&Room(Event::new()), pair, (), 1, &|| ()).map_err(|broken| broken.fault)
}

struct Room(Event);

impl Visitor for Room {
    type Dir = Pair;
    type Meta = ();
    type Scratch = ();
    const REMOVES: bool = false;
    const DESCRIPTORS: usize = 2;

    fn bell(&self) -> &Event {
        &self.0
    }

    fn list(dir: &Pair) -> BorrowedFd<'_> {
        dir.old.as_fd()
    }

    fn parent(&self, dir: &Pair) -> Result<Pair, Fault> {
        let open = |dir| openat(dir, c"..", DIRECTORY, Mode::empty()).call("openat");
        Ok(Pair { old: open(&dir.old)?, new: open(&dir.new)? })
    }

    fn entry(&self, (): &mut (), dir: &Pair, name: &CStr, _: FileType) -> Result<(), Fault> {
        match unlinkat(&dir.new, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // What unlink says of a directory.
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(errno).call("unlinkat"),
        }
        let tree = openat(&dir.new, name, DIRECTORY, Mode::empty()).call("openat")?;
        sweep(&tree)?;
        unlinkat(&dir.new, name, AtFlags::REMOVEDIR).call("unlinkat")
    }

    fn enter(&self, dir: &Pair, name: &CStr) -> Result<Option<(Pair, ())>, Fault> {
        match openat(&dir.new, name, DIRECTORY, Mode::empty()) {
            Ok(new) => {
                let old = openat(&dir.old, name, DIRECTORY, Mode::empty()).call("openat")?;
                Ok(Some((Pair { old, new }, ())))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                unlinkat(&dir.new, name, AtFlags::empty()).call("unlinkat").map(|()| None)
            }
            Err(errno) => Err(errno).call("openat"),
        }
    }

    fn leave(&self, (): &mut (), _: Option<(&Pair, &CStr)>, _: &Pair, (): &(), _: bool) -> Result<(), Fault> {
        Ok(())
    }
}
