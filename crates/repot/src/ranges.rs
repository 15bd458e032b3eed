//! One large file copied by several threads: by the one that moves it, and by those that have no directory to walk.
//!
//! Ranges are handed out from the file's end, and freed in that order by the thread that moves it, so that the length of the old file
//! still tells how much of it is there. All ranges that are in both files are at most a chunk for each thread together.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::data::{self, Buffer};
use crate::error::{Call, Fault};
use crate::folios::Folios;
use crate::mover::{CHUNK, Progress};
use crate::sys::{Event, Mutex};

/// Where the thread that moves a large file finds others to help.
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
            file.changed.tell();
        }
    }

    /// Asks for help with a file of `size` bytes down to its first chunk; `None` where there is nobody else, or another file is
    /// being helped with.
    pub(crate) fn post(&self, old: BorrowedFd<'_>, new: BorrowedFd<'_>, size: u64) -> Option<Posted<'_>> {
        if self.threads == 1 || size <= u64::from(self.threads) * CHUNK {
            return None;
        }
        let mut posted = self.file.lock();
        if posted.is_some() {
            return None;
        }
        let file = Arc::new(Large {
            old: fcntl_dupfd_cloexec(old, 0).ok()?,
            new: fcntl_dupfd_cloexec(new, 0).ok()?,
            hands: Mutex::new(Hands { left: size, out: VecDeque::new(), failed: None }),
            changed: Event::new(),
        });
        *posted = Some(file.clone());
        Some(Posted { board: self, file })
    }

    /// Copies a range of a file that help was asked for; whether there was one.
    pub(crate) fn assist(&self, folios: &Folios, progress: &Progress) -> bool {
        let Some(file) = self.file.lock().clone().filter(|_| folios.large()) else { return false };
        let Some(range) = file.take(self.threads, folios.chunk()) else { return false };
        let length = range.end - range.start;
        let copied = folios.timed(length, || {
            let buffer = &mut Buffer::default();
            data::copy_beside_others(buffer, file.old.as_fd(), file.new.as_fd(), range.clone())
        });
        if copied.is_ok() {
            progress.copied(length);
        }
        file.put_back(&range, copied);
        true
    }
}

/// A file that several threads copy.
#[derive(Debug)]
struct Large {
    old: OwnedFd,
    new: OwnedFd,
    hands: Mutex<Hands>,
    changed: Event,
}

/// Which range is in whose hands.
#[derive(Debug)]
struct Hands {
    /// What lies below has not been handed out.
    left: u64,
    /// What has been, from the end on, and whether it has been copied.
    out: VecDeque<(Range<u64>, bool)>,
    failed: Option<Fault>,
}

impl Large {
    fn take(&self, threads: u32, chunk: u64) -> Option<Range<u64>> {
        let mut hands = self.hands.lock();
        let out: u64 = hands.out.iter().map(|(range, _)| range.end - range.start).sum();
        if hands.left <= CHUNK || out + chunk > u64::from(threads) * CHUNK || hands.failed.is_some() {
            return None;
        }
        let range = (hands.left - 1) / chunk * chunk..hands.left;
        hands.left = range.start;
        hands.out.push_back((range.clone(), false));
        Some(range)
    }

    fn put_back(&self, range: &Range<u64>, copied: Result<(), Fault>) {
        let mut hands = self.hands.lock();
        match copied {
            Ok(()) => {
                if let Some((_, done)) = hands.out.iter_mut().find(|(out, _)| out == range) {
                    *done = true;
                }
            }
            Err(fault) => {
                hands.left = 0;
                hands.out.retain(|(out, _)| out != range);
                hands.failed.get_or_insert(fault);
            }
        }
        drop(hands);
        self.changed.tell();
    }
}

/// The right of the thread that moves the file; to be given back with [`Posted::end`].
#[derive(Debug)]
pub(crate) struct Posted<'a> {
    board: &'a Board,
    file: Arc<Large>,
}

/// What the thread that moves the file has to do next.
pub(crate) enum Next {
    /// Copy this, and say so with [`Posted::copied`].
    Copy(Range<u64>),
    /// Free this, which is the end of what the old file still has, and say so with [`Posted::freed`].
    Free(Range<u64>),
    /// Copy and free what is left, up to here, by itself.
    Rest(u64),
}

impl Posted<'_> {
    /// Waits where everything is in other hands. There is more to copy together only while there are large folios.
    ///
    /// # Errors
    /// Where a copy failed, or a thread was lost.
    pub(crate) fn next(&self, folios: &Folios) -> Result<Next, Fault> {
        loop {
            let seen = self.file.changed.seen();
            let mut hands = self.file.hands.lock();
            if self.board.abandoned.load(Ordering::Acquire) {
                return Err(Errno::CANCELED).call("futex");
            }
            if let Some(fault) = hands.failed.take() {
                return Err(fault);
            }
            if let Some((range, true)) = hands.out.front() {
                return Ok(Next::Free(range.clone()));
            }
            let on = folios.large() && hands.left > CHUNK;
            if hands.out.is_empty() && !on {
                return Ok(Next::Rest(hands.left));
            }
            drop(hands);
            if on && let Some(range) = self.file.take(self.board.threads, folios.chunk()) {
                self.board.bell.tell();
                return Ok(Next::Copy(range));
            }
            self.file.changed.wait(seen);
        }
    }

    pub(crate) fn copied(&self, range: &Range<u64>, copied: Result<(), Fault>) {
        self.file.put_back(range, copied);
    }

    pub(crate) fn freed(&self) {
        self.file.hands.lock().out.pop_front();
        self.board.bell.tell();
    }

    /// Waits until nobody has a part of the file in hand. Gives how many bytes are in both files.
    pub(crate) fn end(self) -> u64 {
        self.board.file.lock().take();
        loop {
            let seen = self.file.changed.seen();
            let mut hands = self.file.hands.lock();
            hands.left = 0;
            if hands.out.iter().all(|(_, done)| *done) || self.board.abandoned.load(Ordering::Acquire) {
                return hands.out.iter().map(|(range, _)| range.end - range.start).sum();
            }
            drop(hands);
            self.file.changed.wait(seen);
        }
    }
}
