//! Moves one large file with several threads: the one that found it, and idle workers.
//!
//! Each thread claims a range at the end of the file, copies it, and frees it once everything behind it has
//! been freed. So the length of the old file still shows how much of it is there, and each thread gets back
//! the memory that it has freed itself. Only one thread at a time can write to a file, so while one copies,
//! another frees.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::ftruncate;
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::data::{self, Buffer, CHUNK, Target};
use super::folios::Folios;
use crate::error::{Call, Fault};
use crate::progress::Progress;
use crate::sys::{Event, Mutex};

/// Where a thread that moves a large file gets help from idle workers.
#[derive(Debug)]
pub(crate) struct LargeFiles {
    threads: u32,
    /// The file that idle workers may help with.
    file: Mutex<Option<Arc<SharedFile>>>,
    /// Whether a worker was lost, possibly with a claimed range.
    abandoned: AtomicBool,
    /// Notified when a range can be claimed; idle workers wait on it.
    bell: Event,
}

impl LargeFiles {
    pub(crate) fn new(threads: u32) -> LargeFiles {
        LargeFiles { threads, file: Mutex::new(None), abandoned: AtomicBool::new(false), bell: Event::new() }
    }

    pub(crate) fn bell(&self) -> &Event {
        &self.bell
    }

    /// Wakes all waiting threads for good, because a worker was lost.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        if let Some(file) = &*self.file.lock() {
            file.changed.notify();
        }
    }

    /// Moves one range of the posted file. Returns whether there was one.
    pub(crate) fn assist(&self, buffer: &mut Buffer, folios: &Folios, progress: &Progress) -> bool {
        let Some(file) = self.file.lock().clone() else { return false };
        self.move_range(&file, buffer, folios, progress)
    }

    /// Moves everything beyond the first chunk of the old file, together with idle workers, and returns the
    /// remaining length. Returns `end` unchanged if there is only one thread, if the file is at most four
    /// chunks long, or if another file is posted already.
    ///
    /// # Errors
    /// What failed. No range is claimed then, unless a worker was lost.
    pub(crate) fn move_in_parallel(
        &self,
        [old, shrinking, new]: [BorrowedFd<'_>; 3],
        end: u64,
        buffer: &mut Buffer,
        folios: &Folios,
        progress: &Progress,
    ) -> Result<u64, Fault> {
        if self.threads == 1 || end <= 4 * CHUNK {
            return Ok(end);
        }
        let duplicate = |file| fcntl_dupfd_cloexec(file, 0);
        let (Ok(old), Ok(shrinking), Ok(new)) = (duplicate(old), duplicate(shrinking), duplicate(new)) else {
            return Ok(end);
        };
        let ranges = Ranges { unclaimed: end, end, copying: false, claimed: 0, failed: None };
        let file =
            Arc::new(SharedFile { old, shrinking, new, ranges: Mutex::new(ranges), changed: Event::new() });
        {
            let mut posted = self.file.lock();
            if posted.is_some() {
                return Ok(end);
            }
            *posted = Some(file.clone());
        }
        loop {
            let seen = file.changed.seen();
            if self.move_range(&file, buffer, folios, progress) {
                continue;
            }
            let mut ranges = file.ranges.lock();
            let lost = self.abandoned.load(Ordering::Acquire);
            if lost || (ranges.claimed == 0 && !ranges.has_unclaimed()) {
                self.file.lock().take();
                return match ranges.failed.take() {
                    Some(fault) => Err(fault),
                    None if lost => Err(Errno::CANCELED).call("futex"),
                    None => Ok(ranges.end),
                };
            }
            drop(ranges);
            file.changed.wait(seen);
        }
    }

    /// Moves one range. Returns whether one could be claimed.
    fn move_range(
        &self,
        file: &SharedFile,
        buffer: &mut Buffer,
        folios: &Folios,
        progress: &Progress,
    ) -> bool {
        let (start, end) = {
            let mut ranges = file.ranges.lock();
            if ranges.copying || !ranges.has_unclaimed() {
                return false;
            }
            let end = ranges.unclaimed;
            ranges.unclaimed = (end - 1) / CHUNK * CHUNK;
            ranges.copying = true;
            ranges.claimed += 1;
            (ranges.unclaimed, end)
        };
        let copied = folios.timed(end - start, || {
            data::copy(buffer, file.old.as_fd(), &mut Target::shared(file.new.as_fd()), start..end)
        });
        if copied.is_ok() {
            progress.copied(end - start);
        }
        file.ranges.lock().copying = false;
        // An idle worker may copy the next range while this one is freed.
        self.bell.notify();
        file.changed.notify();
        let moved = copied.and_then(|()| {
            let freed = if self.wait_for_turn(file, end) {
                ftruncate(&file.shrinking, start).call("ftruncate")
            } else {
                Err(Errno::CANCELED).call("ftruncate")
            };
            progress.freed(end - start);
            freed
        });
        let mut ranges = file.ranges.lock();
        ranges.claimed -= 1;
        match moved {
            Ok(()) => ranges.end = start,
            // The first fault is the cause of the later ones.
            Err(fault) => drop(ranges.failed.get_or_insert(fault)),
        }
        drop(ranges);
        file.changed.notify();
        true
    }

    /// Waits until everything from `end` on has been freed. Returns false if that will never happen.
    fn wait_for_turn(&self, file: &SharedFile, end: u64) -> bool {
        loop {
            let seen = file.changed.seen();
            let ranges = file.ranges.lock();
            if ranges.end == end {
                return true;
            }
            if ranges.failed.is_some() || self.abandoned.load(Ordering::Acquire) {
                return false;
            }
            drop(ranges);
            file.changed.wait(seen);
        }
    }
}

/// A file that several threads move.
#[derive(Debug)]
struct SharedFile {
    old: OwnedFd,
    /// The old file, open for writing.
    shrinking: OwnedFd,
    new: OwnedFd,
    ranges: Mutex<Ranges>,
    /// Notified when `ranges` changes.
    changed: Event,
}

/// The state of its ranges.
#[derive(Debug)]
struct Ranges {
    /// Everything below this offset is unclaimed.
    unclaimed: u64,
    /// The length of the old file.
    end: u64,
    /// Whether a thread is copying.
    copying: bool,
    /// The number of claimed ranges that are not freed yet.
    claimed: u32,
    failed: Option<Fault>,
}

impl Ranges {
    fn has_unclaimed(&self) -> bool {
        self.unclaimed > CHUNK && self.failed.is_none()
    }
}
