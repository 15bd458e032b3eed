//! One large file moved by two threads: by the one that met it, and by one that has no directory to walk.
//!
//! Each takes a range from the file's end, copies it, and frees it when all behind it has been freed: so the
//! length of the old file still tells how much of it is there, and each thread gets the memory back that it
//! has freed itself. Writing to a file is for one thread at a time, so while one copies, the other frees.

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

/// Where the thread that meets a large file finds another to help.
#[derive(Debug)]
pub(crate) struct Board {
    threads: u32,
    file: Mutex<Option<Arc<Large>>>,
    /// Whether a thread was lost, maybe with a range in hand.
    abandoned: AtomicBool,
    /// What threads without work wait for.
    bell: Event,
}

impl Board {
    pub(crate) fn new(threads: u32) -> Board {
        Board { threads, file: Mutex::new(None), abandoned: AtomicBool::new(false), bell: Event::new() }
    }

    pub(crate) fn bell(&self) -> &Event {
        &self.bell
    }

    /// Lets nobody wait any longer.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        if let Some(file) = &*self.file.lock() {
            file.changed.notify();
        }
    }

    /// Moves a range of a file that help was asked for; whether there was one.
    pub(crate) fn assist(&self, buffer: &mut Buffer, folios: &Folios, progress: &Progress) -> bool {
        let Some(file) = self.file.lock().clone() else { return false };
        self.step(&file, buffer, folios, progress)
    }

    /// Moves what the old file has beyond its first chunk, together with whoever is idle; gives the length
    /// that it has then. Not where there is nobody else, or another file is being helped with: then it is as
    /// long as it was, which is `end`.
    ///
    /// # Errors
    /// What failed. Nobody has a part of the file in hand then, unless a thread was lost.
    pub(crate) fn together(
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
        let own = |file| fcntl_dupfd_cloexec(file, 0);
        let (Ok(old), Ok(shrinking), Ok(new)) = (own(old), own(shrinking), own(new)) else { return Ok(end) };
        let hands = Hands { left: end, end, copying: false, out: 0, failed: None };
        let file = Arc::new(Large { old, shrinking, new, hands: Mutex::new(hands), changed: Event::new() });
        {
            let mut posted = self.file.lock();
            if posted.is_some() {
                return Ok(end);
            }
            *posted = Some(file.clone());
        }
        loop {
            let seen = file.changed.seen();
            if self.step(&file, buffer, folios, progress) {
                continue;
            }
            let mut hands = file.hands.lock();
            let lost = self.abandoned.load(Ordering::Acquire);
            if lost || (hands.out == 0 && !hands.more()) {
                self.file.lock().take();
                return match hands.failed.take() {
                    Some(fault) => Err(fault),
                    None if lost => Err(Errno::CANCELED).call("futex"),
                    None => Ok(hands.end),
                };
            }
            drop(hands);
            file.changed.wait(seen);
        }
    }

    /// Moves one range; whether there was one to be had.
    fn step(&self, file: &Large, buffer: &mut Buffer, folios: &Folios, progress: &Progress) -> bool {
        let (start, end) = {
            let mut hands = file.hands.lock();
            if hands.copying || !hands.more() {
                return false;
            }
            let end = hands.left;
            hands.left = (end - 1) / CHUNK * CHUNK;
            hands.copying = true;
            hands.out += 1;
            (hands.left, end)
        };
        let copied = folios.timed(end - start, || {
            data::copy(buffer, file.old.as_fd(), &mut Target::anywhere(file.new.as_fd()), start..end)
        });
        if copied.is_ok() {
            progress.copied(end - start);
        }
        file.hands.lock().copying = false;
        // Who is idle may copy the next range while this one is freed.
        self.bell.notify();
        file.changed.notify();
        let moved = copied.and_then(|()| {
            let freed = if self.turn(file, end) {
                ftruncate(&file.shrinking, start).call("ftruncate")
            } else {
                Err(Errno::CANCELED).call("ftruncate")
            };
            progress.freed(end - start);
            freed
        });
        let mut hands = file.hands.lock();
        hands.out -= 1;
        match moved {
            Ok(()) => hands.end = start,
            // The first fault is the cause of the others.
            Err(fault) => drop(hands.failed.get_or_insert(fault)),
        }
        drop(hands);
        file.changed.notify();
        true
    }

    /// Waits until everything from `end` on has been freed; not where that will never be.
    fn turn(&self, file: &Large, end: u64) -> bool {
        loop {
            let seen = file.changed.seen();
            let hands = file.hands.lock();
            if hands.end == end {
                return true;
            }
            if hands.failed.is_some() || self.abandoned.load(Ordering::Acquire) {
                return false;
            }
            drop(hands);
            file.changed.wait(seen);
        }
    }
}

/// A file that help was asked for.
#[derive(Debug)]
struct Large {
    old: OwnedFd,
    /// The old file again, open for writing.
    shrinking: OwnedFd,
    new: OwnedFd,
    hands: Mutex<Hands>,
    changed: Event,
}

/// Which part of it is where.
#[derive(Debug)]
struct Hands {
    /// What lies below is in nobody's hands yet.
    left: u64,
    /// The length of the old file.
    end: u64,
    /// Whether somebody copies.
    copying: bool,
    /// How many ranges are in somebody's hands.
    out: u32,
    failed: Option<Fault>,
}

impl Hands {
    fn more(&self) -> bool {
        self.left > CHUNK && self.failed.is_none()
    }
}
