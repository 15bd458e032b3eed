//! A regular file on its way, and on the way back.
//!
//! What is larger than a chunk goes from its end, chunk by chunk, and after each the old file is truncated:
//! ramfs has no other way to free a part of a file. The length of the old file tells at any time how much of
//! it is still there.

use core::ffi::CStr;
use core::ops::Range;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, ftruncate, openat};
use rustix::io::Errno;

use super::data::{self, Buffer, CHUNK, Holes, Target};
use super::folios::Folios;
use super::ranges::Board;
use crate::error::{Call, Fault};
use crate::metadata::{At, Attributes, Capability, Meta};
use crate::progress::Progress;
use crate::walk::Pair;

pub(super) const NO_FOLLOW: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// How files are moved.
#[derive(Debug)]
pub(super) struct Means<'a> {
    pub(super) attributes: Attributes,
    pub(super) holes: Holes,
    /// Device and inode of the running program, which must not be truncated. The kernel refuses that with
    /// ETXTBSY, except in 6.11.0 to 6.11.10 and 6.12.0 to 6.12.1.
    pub(super) program: Option<((u32, u32), u64)>,
    /// Whether contents are overwritten before they are freed.
    pub(super) wipe: bool,
    pub(super) folios: &'a Folios,
    pub(super) board: &'a Board,
    pub(super) progress: &'a Progress,
}

impl Means<'_> {
    fn is_program(&self, meta: &Meta) -> bool {
        self.program == Some((meta.device, meta.inode))
    }
}

/// One file on its way.
pub(crate) struct FileCopy<'a> {
    means: &'a Means<'a>,
    meta: &'a Meta,
    old: BorrowedFd<'a>,
    new: BorrowedFd<'a>,
    target: Target<'a>,
    /// Whether the old file has lost anything.
    pub(crate) freed: bool,
    /// Its capabilities, from before it lost anything.
    capability: Option<Capability>,
    /// How many bytes are in both.
    pub(crate) twice: u64,
}

impl<'a> FileCopy<'a> {
    pub(crate) fn new(
        means: &'a Means<'a>,
        meta: &'a Meta,
        old: BorrowedFd<'a>,
        new: BorrowedFd<'a>,
    ) -> Self {
        FileCopy { means, meta, old, new, target: Target::new(new), freed: false, capability: None, twice: 0 }
    }

    /// Copies it, with attributes, and frees what does not go away with the old name.
    pub(crate) fn run(
        &mut self,
        buffer: &mut Buffer,
        dir: &Pair,
        name: &CStr,
        first: bool,
    ) -> Result<(), Fault> {
        let Meta { size, allocated, .. } = *self.meta;
        let sparse = allocated < size;
        // What gives up its memory by being truncated: what is too large to be there twice, what does not go
        // away when this name is unlinked, and what must be overwritten.
        let mut shrinking = None;
        let whole = first || self.means.wipe;
        let large = size > CHUNK;
        if (large || (whole && size > 0)) && !self.means.is_program(self.meta) {
            shrinking = match openat(&dir.old, name, OFlags::WRONLY | NO_FOLLOW, Mode::empty()) {
                // Another program that runs.
                Err(Errno::TXTBSY) => None,
                opened => Some(opened.call("openat")?),
            };
        }
        if sparse || large {
            if !sparse {
                let ahead = self.means.folios.prepare(buffer, self.old, &mut self.target, size)?;
                self.twice += ahead;
                self.means.progress.duplicate(ahead);
            }
            ftruncate(self.new, size).call("ftruncate")?;
        }
        let mut end = size;
        if let Some(old) = &shrinking {
            while end > CHUNK {
                let start = (end - 1) / CHUNK * CHUNK;
                let copied = self.copy(buffer, start..end, sparse)?;
                self.before_release()?;
                self.release(buffer, old, start..end)?;
                self.twice -= copied;
                self.means.progress.freed(copied);
                end = start;
                if !sparse && !self.means.wipe {
                    end = self.together(buffer, old, end)?;
                }
            }
        }
        self.copy(buffer, 0..end, sparse)?;
        self.attributes()?;
        if whole && let Some(old) = &shrinking {
            self.release(buffer, old, 0..end)?;
        }
        Ok(())
    }

    /// Moves more of a large file, if there is an idle thread; gives the length that the old file has then.
    fn together(&mut self, buffer: &mut Buffer, old: &OwnedFd, end: u64) -> Result<u64, Fault> {
        let files = [self.old, old.as_fd(), self.new];
        let Means { board, folios, progress, .. } = self.means;
        self.target = Target::anywhere(self.new);
        board.together(files, end, buffer, folios, progress)
    }

    /// What has been freed must be whole in the new tree, attributes included, and the capabilities are lost
    /// with the first byte.
    fn before_release(&mut self) -> Result<(), Fault> {
        if !self.freed {
            self.capability = Some(self.means.attributes.capability(self.old)?);
            self.attributes()?;
        }
        Ok(())
    }

    /// Frees the end of the old file.
    fn release(&mut self, buffer: &mut Buffer, old: &OwnedFd, range: Range<u64>) -> Result<(), Fault> {
        if !self.means.wipe {
            ftruncate(old, range.start).call("ftruncate")?;
        } else {
            let zero = |part| data::zero(old.as_fd(), part);
            let wiped = data::parts(self.means.holes, self.old, range.clone(), zero)
                .and_then(|()| ftruncate(old, range.start).call("ftruncate"));
            if let Err(fault) = wiped {
                // The length says that the old file has it still, so it must.
                let mut back = Target::new(old.as_fd());
                let _ = data::parts(Holes::Seek, self.new, range, |part| {
                    data::copy(buffer, self.new, &mut back, part)
                });
                return Err(fault);
            }
        }
        self.freed = true;
        Ok(())
    }

    /// Copies a range, and counts the bytes of it that are not holes.
    fn copy(&mut self, buffer: &mut Buffer, range: Range<u64>, sparse: bool) -> Result<u64, Fault> {
        let mut copied = 0;
        let mut part = |part: Range<u64>| {
            copied += part.end - part.start;
            data::copy(buffer, self.old, &mut self.target, part)
        };
        if sparse {
            data::parts(self.means.holes, self.old, range, part)?
        } else {
            self.means.folios.timed(range.end - range.start, || part(range))?
        }
        self.twice += copied;
        self.means.progress.copied(copied);
        Ok(copied)
    }

    /// Gives the new file all attributes, whatever has been done to it.
    pub(crate) fn attributes(&self) -> Result<(), Fault> {
        let (old, new) = (At::Open(self.old), At::Open(self.new));
        let copied = self.means.attributes.copy(self.meta, old, new, self.capability.is_none());
        copied.and(self.capability.as_ref().map_or(Ok(()), |capability| capability.give(self.new)))
    }
}

/// Gives `new`, the first part of a file, the rest of it and all attributes from `old`, which is on a tmpfs.
pub(crate) fn merge_contents(
    attributes: Attributes,
    holes: Holes,
    buffer: &mut Buffer,
    (old_dir, old_name): (BorrowedFd<'_>, &CStr),
    (new_dir, new_name): (BorrowedFd<'_>, &CStr),
    meta: &Meta,
) -> Result<(), Fault> {
    let old = openat(old_dir, old_name, OFlags::RDWR | NO_FOLLOW, Mode::empty()).call("openat")?;
    let new = openat(new_dir, new_name, OFlags::WRONLY | NO_FOLLOW, Mode::empty()).call("openat")?;
    let capability = attributes.capability(old.as_fd())?;
    let mut target = Target::new(new.as_fd());
    let mut at = Meta::read(At::Open(new.as_fd()))?.size;
    while at < meta.size {
        let end = meta.size.min((at / CHUNK + 1) * CHUNK);
        data::parts(holes, old.as_fd(), at..end, |part| data::copy(buffer, old.as_fd(), &mut target, part))?;
        // The length is what tells how much has come back, so it grows with it, holes included.
        ftruncate(&new, end).call("ftruncate")?;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&old, hole, at, end - at).call("fallocate")?;
        at = end;
    }
    let copied = attributes.copy(meta, At::Open(old.as_fd()), At::Open(new.as_fd()), false);
    copied.and(capability.give(new.as_fd()))
}
