//! Large folios in the new tmpfs while the tree moves, where they turn out to be faster.
//!
//! From 6.14 on a tmpfs with `huge=within_size` takes folios as large as what is written, which makes copying large files up to
//! three times as fast, and takes no more of it where there are no holes (where there are, see the plan). But a folio comes from memory in one piece, and in a virtual machine that
//! memory may never have been touched: then the host has to find it page by page, five times as slow as small pages, which are
//! the ones just freed in the old tree (docs/bench). Nothing tells which it will be. So both ways are timed on the first
//! large files, the faster one is taken, and given up when it stops being so. In the end the option is as it was.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, ftruncate, openat, statx};
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick};

use crate::mover::CHUNK;

/// How much is copied in one way before it is judged, in bytes.
const TRIAL: u64 = 4 << 20;
/// Smaller copies say more of the calls around them than of memory.
const LEAST: u64 = 64 << 10;

const OFF: u8 = 0;
const TRY_SMALL: u8 = 1;
const TRY_LARGE: u8 = 2;
const LARGE: u8 = 3;

/// The choice, and what it is made from.
#[derive(Debug)]
pub(crate) struct Folios {
    context: Option<OwnedFd>,
    state: AtomicU8,
    /// Of the trial that runs.
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
    /// What small pages took, in nanoseconds for each mebibyte.
    small: AtomicU64,
}

impl Folios {
    /// Pages as the file system gives them.
    pub(crate) fn as_they_come() -> Self {
        Folios {
            context: None,
            state: AtomicU8::new(OFF),
            bytes: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
            small: AtomicU64::new(0),
        }
    }

    /// Tries large folios on the tmpfs of this mount, whose root is `dir`; not where they are there already.
    pub(crate) fn on(mount: &OwnedFd, dir: BorrowedFd<'_>) -> Self {
        let mut folios = Folios::as_they_come();
        if large(dir) == Some(false) {
            let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
            folios.context = fspick(mount, "", flags).ok();
            let state = if folios.context.is_some() { TRY_SMALL } else { OFF };
            folios.state = AtomicU8::new(state);
        }
        folios
    }

    /// How much of a file is to be copied before that much of the old one is freed: more only where a folio may be that large,
    /// which is freed only as a whole.
    pub(crate) fn chunk(&self) -> u64 {
        match self.state.load(Ordering::Relaxed) {
            OFF | TRY_SMALL => CHUNK / 2,
            _ => CHUNK,
        }
    }

    /// Takes into account that copying so many bytes took so long.
    pub(crate) fn took(&self, bytes: u64, nanoseconds: u64) {
        let state = self.state.load(Ordering::Relaxed);
        if state == OFF || bytes < LEAST {
            return;
        }
        let sum = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let time = self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed) + nanoseconds;
        // Whoever sees the trial full empties it, and judges.
        if sum < TRIAL || self.bytes.compare_exchange(sum, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        self.nanoseconds.store(0, Ordering::Relaxed);
        let pace = time / (sum >> 20).max(1);
        if state == TRY_SMALL {
            self.small.store(pace, Ordering::Relaxed);
            self.turn("within_size", TRY_LARGE);
        } else if pace > self.small.load(Ordering::Relaxed) {
            self.turn("never", OFF);
        } else {
            self.state.store(LARGE, Ordering::Relaxed);
        }
    }

    fn turn(&self, huge: &str, state: u8) {
        let turned = self.context.as_ref().is_some_and(|context| {
            fsconfig_set_string(context.as_fd(), "huge", huge).is_ok()
                && fsconfig_reconfigure(context.as_fd()).is_ok()
        });
        self.state.store(if turned { state } else { OFF }, Ordering::Relaxed);
    }
}

impl Drop for Folios {
    fn drop(&mut self) {
        if self.context.is_some() {
            self.turn("never", OFF);
        }
    }
}

/// Whether files of this tmpfs get large folios, which shows in their block size.
fn large(dir: BorrowedFd<'_>) -> Option<bool> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(dir, c".", flags, Mode::RUSR).ok()?;
    ftruncate(&file, 16 << 20).ok()?;
    let status = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
    Some(u64::from(status.stx_blksize) > crate::sys::page_size())
}
