//! Moves one regular file, and rolls it back.
//!
//! A file larger than a chunk moves from its end, chunk by chunk, and after each chunk the old file is
//! truncated. Truncation is the only way to free part of a ramfs file. The length of the old file always
//! shows how much of it is still there.

use core::ffi::CStr;
use core::ops::Range;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, ftruncate, openat};
use rustix::io::Errno;

use super::both::Both;
use super::data::{self, Buffer, CHUNK, Target};
use super::folios::Folios;
use super::holes::{FromEnd, Holes, data_ranges, next_data};
use super::ranges::LargeFiles;
use crate::error::{Call, Fault};
use crate::metadata::{At, Attributes, Capability, Meta};
use crate::progress::Progress;
use crate::skipped::Skipped;
use crate::sys;
use crate::walk::Pair;

pub(super) const NO_FOLLOW: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// The settings of a move.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    pub(super) attributes: Attributes,
    pub(super) holes: Holes,
    /// Device and inode of the running program, which must not be truncated. The kernel refuses that with
    /// ETXTBSY, except in 6.11.0 to 6.11.10 and in 6.12.0 and 6.12.1.
    pub(super) program: Option<((u32, u32), u64)>,
    /// Whether contents are overwritten before they are freed.
    pub(super) wipe: bool,
    pub(super) folios: &'a Folios,
    pub(super) large_files: &'a LargeFiles,
    pub(super) progress: &'a Progress,
    pub(super) both: &'a Both,
    pub(super) skipped: &'a Skipped,
    /// Whether other processes use the tree while it moves. Then no file is truncated: one of them may open
    /// it at any time.
    pub(super) beside: bool,
}

impl Settings<'_> {
    fn is_program(&self, meta: &Meta) -> bool {
        self.program == Some((meta.device, meta.inode))
    }
}

/// The move of one file.
pub(crate) struct FileCopy<'a> {
    settings: &'a Settings<'a>,
    meta: &'a Meta,
    old: BorrowedFd<'a>,
    new: BorrowedFd<'a>,
    target: Target<'a>,
    /// Whether any part of the old file was freed.
    pub(crate) freed: bool,
    /// Its capabilities, read before the first truncation removes them.
    capability: Option<Capability>,
    /// Bytes that are in both files.
    pub(crate) duplicated: u64,
    /// Bytes that were copied.
    copied: u64,
}

impl<'a> FileCopy<'a> {
    pub(crate) fn new(
        settings: &'a Settings<'a>,
        meta: &'a Meta,
        old: BorrowedFd<'a>,
        new: BorrowedFd<'a>,
    ) -> Self {
        FileCopy {
            settings,
            meta,
            old,
            new,
            target: Target::new(new),
            freed: false,
            capability: None,
            duplicated: 0,
            copied: 0,
        }
    }

    /// Copies contents and attributes, and frees whatever unlinking the old name does not free. `first` means
    /// that the inode has more names.
    pub(crate) fn run(
        &mut self,
        buffer: &mut Buffer,
        dir: &Pair,
        name: &CStr,
        first: bool,
    ) -> Result<(), Fault> {
        let Meta { size, allocated, .. } = *self.meta;
        let sparse = allocated < size;
        // Truncate instead of unlinking: a file too large to be in memory twice, an inode that keeps other
        // names, and contents that must be overwritten.
        let mut shrinking = None;
        let Settings { wipe, beside, .. } = *self.settings;
        let truncates = first || wipe;
        let large = size > CHUNK;
        let frees =
            (large || (truncates && size > 0)) && (wipe || !beside) && !self.settings.is_program(self.meta);
        // Whoever else holds the file would lose its contents; unlinking it harms nobody.
        if frees && !sys::is_held(self.old) {
            shrinking = match openat(&dir.old, name, OFlags::WRONLY | NO_FOLLOW, Mode::empty()) {
                // Another program that is running.
                Err(Errno::TXTBSY) => None,
                opened => {
                    let opened = opened.call("openat")?;
                    if Meta::read(At::Open(opened.as_fd()))?.inode != self.meta.inode {
                        // Another process has replaced it.
                        return Err(Errno::NOENT).call("openat");
                    }
                    Some(opened)
                }
            };
        }
        if sparse || large {
            if !sparse {
                let ahead = self.settings.folios.prepare(buffer, self.old, &mut self.target, size)?;
                self.duplicated += ahead;
                self.settings.progress.duplicate(ahead);
            }
            ftruncate(self.new, size).call("ftruncate")?;
        }
        let mut end = size;
        let mut data = FromEnd::new(self.settings.holes, allocated);
        if let Some(old) = &shrinking {
            while end > CHUNK {
                if sparse {
                    end = data.below(self.old, end)?.unwrap_or(0);
                    if end <= CHUNK {
                        break;
                    }
                }
                let start = (end - 1) / CHUNK * CHUNK;
                let copied = self.copy(buffer, start..end, sparse)?;
                data.moved(copied);
                self.before_release()?;
                self.release(buffer, old, start..end)?;
                self.duplicated -= copied;
                self.settings.progress.freed(copied);
                end = start;
                if !sparse && !self.settings.wipe {
                    end = self.move_in_parallel(buffer, old, end)?;
                }
            }
        }
        self.copy(buffer, 0..end, sparse)?;
        if sparse {
            // The total of the progress counts whole pages of sparse files.
            self.settings.progress.add_bytes(allocated.saturating_sub(self.copied));
        }
        self.attributes()?;
        if truncates && let Some(old) = &shrinking {
            self.release(buffer, old, 0..end)?;
        }
        Ok(())
    }

    /// Moves more of a large file together with idle workers. Returns the new length of the old file.
    fn move_in_parallel(&mut self, buffer: &mut Buffer, old: &OwnedFd, end: u64) -> Result<u64, Fault> {
        let files = [self.old, old.as_fd(), self.new];
        let Settings { large_files, folios, progress, .. } = self.settings;
        self.target = Target::shared(self.new);
        large_files.move_in_parallel(files, end, buffer, folios, progress)
    }

    /// Freed ranges must be complete in the new tree, attributes included, and the first truncation removes
    /// the capabilities.
    fn before_release(&mut self) -> Result<(), Fault> {
        if !self.freed {
            self.capability = Some(self.settings.attributes.capability(self.old)?);
            self.attributes()?;
        }
        Ok(())
    }

    /// Frees the range at the end of the old file.
    fn release(&mut self, buffer: &mut Buffer, old: &OwnedFd, range: Range<u64>) -> Result<(), Fault> {
        if !self.freed {
            self.settings.both.split(self.meta.inode, Meta::read(At::Open(self.new))?.inode);
        }
        if !self.settings.wipe {
            ftruncate(old, range.start).call("ftruncate")?;
        } else {
            let zero = |part| data::zero(old.as_fd(), part);
            let wiped = data_ranges(self.settings.holes, self.old, range.clone(), zero)
                .and_then(|()| ftruncate(old, range.start).call("ftruncate"));
            if let Err(fault) = wiped {
                // The length still includes the range, so its contents must be restored.
                let mut target = Target::new(old.as_fd());
                let _ = data_ranges(Holes::Seek, self.new, range, |part| {
                    data::copy(buffer, self.new, &mut target, part)
                });
                return Err(fault);
            }
        }
        self.freed = true;
        Ok(())
    }

    /// Copies a range. Returns the number of bytes that are not holes.
    fn copy(&mut self, buffer: &mut Buffer, range: Range<u64>, sparse: bool) -> Result<u64, Fault> {
        let mut copied = 0;
        let mut part = |part: Range<u64>| {
            copied += part.end - part.start;
            data::copy(buffer, self.old, &mut self.target, part)
        };
        if sparse {
            data_ranges(self.settings.holes, self.old, range, part)?
        } else {
            self.settings.folios.timed(range.end - range.start, || part(range))?
        }
        self.duplicated += copied;
        self.copied += copied;
        self.settings.progress.copied(copied);
        Ok(copied)
    }

    /// Sets all attributes of the new file, whatever was done to it before.
    pub(crate) fn attributes(&self) -> Result<(), Fault> {
        let (old, new) = (At::Open(self.old), At::Open(self.new));
        let Settings { attributes, skipped, .. } = self.settings;
        let copied = attributes.copy(self.meta, old, new, self.capability.is_none(), skipped);
        copied
            .and(self.capability.as_ref().map_or(Ok(()), |capability| capability.restore(self.new, skipped)))
    }
}

/// Appends to `new`, which holds the first part of a file, the rest from `old`, which is on a tmpfs. Then
/// copies all attributes.
pub(crate) fn merge_contents(
    attributes: Attributes,
    skipped: &Skipped,
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
        let Some(data) = next_data(old.as_fd(), at)? else {
            ftruncate(&new, meta.size).call("ftruncate")?;
            break;
        };
        at = at.max(data / CHUNK * CHUNK);
        let end = meta.size.min((at / CHUNK + 1) * CHUNK);
        data_ranges(Holes::Seek, old.as_fd(), at..end, |part| {
            data::copy(buffer, old.as_fd(), &mut target, part)
        })?;
        // The length of `new` shows how much was restored, so it grows with every chunk, holes included.
        ftruncate(&new, end).call("ftruncate")?;
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&old, hole, at, end - at).call("fallocate")?;
        at = end;
    }
    let copied = attributes.copy(meta, At::Open(old.as_fd()), At::Open(new.as_fd()), false, skipped);
    copied.and(capability.restore(new.as_fd(), skipped))
}
