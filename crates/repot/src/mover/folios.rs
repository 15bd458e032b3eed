//! Large folios in the new tmpfs while the tree moves, for as long as they are faster.
//!
//! From 6.14 on a tmpfs with `huge=within_size` takes folios as large as what is written at once, and never
//! beyond the end of the file: a file without holes takes no more memory, and far fewer allocations. From
//! 6.17 on it takes the largest that fits into the file, however little is written, and fills the rest with
//! zeros; huge pages, too. Those come from memory that was free as a whole, which in a virtual machine was
//! never touched or given back: the host has to find it page by page, several times as slow as what was just
//! freed in the old tree (docs/bench). So a first page is put where each huge page would be, and what is left
//! is at most as large as what `data` writes at once.
//!
//! Nothing tells whether smaller folios come from memory that is at hand either. So both ways are timed,
//! large folios are kept as long as they are faster, and tried again later. In the end the option is as it
//! was.
//!
//! Large ones come first: a file that is made without them never takes them well
//! (`mapping_set_large_folios`). Before 6.17 it takes none; from then on it is written a page at a time, and
//! all of the folio filled with zeros for the first.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, ftruncate, openat, statx};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick};

use super::data::{self, Buffer, CHUNK, Target};
use crate::error::{Fault, retry_once};
use crate::sys;

/// A huge page, in bytes. Where it is larger, more pages than needed are put in place.
const HUGE: u64 = 2 << 20;

/// How much is copied into large folios before they are judged, in bytes.
const TRIAL: u64 = 2 << 20;
/// Smaller copies say more of the calls around them than of memory.
const LEAST: u64 = 64 << 10;

/// The choice, and what it is made from.
#[derive(Debug)]
pub(crate) struct Folios {
    /// The mount, where they are tried.
    mount: Option<OwnedFd>,
    large: AtomicBool,
    /// How much is copied into single pages before large folios are tried again; a quarter of that, before
    /// the first judgement.
    rest: AtomicU64,
    /// Copied since the last judgement.
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
    /// What single pages took, in nanoseconds for each mebibyte: nothing, until they were timed, so that they
    /// are.
    small: AtomicU64,
}

impl Folios {
    /// Pages as the file system gives them.
    pub(crate) fn as_they_come() -> Self {
        Folios {
            mount: None,
            large: AtomicBool::new(false),
            rest: AtomicU64::new(TRIAL / 4),
            bytes: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
            small: AtomicU64::new(0),
        }
    }

    /// Tries large folios on the tmpfs of this mount, whose root is `dir`; not where they are there already.
    pub(crate) fn on(mount: &OwnedFd, dir: BorrowedFd<'_>) -> Self {
        let mut folios = Folios::as_they_come();
        if large(dir) == Some(false) {
            folios.mount = fcntl_dupfd_cloexec(mount, 0).ok();
            folios.turn(true);
        }
        folios
    }

    /// Puts the first page of each part of an empty file that could become one huge page where it belongs:
    /// later writes then get smaller folios. The file must be no longer than what it holds, or the first page
    /// would get the huge page. Not where that many pages would be more than a chunk in memory twice. Gives
    /// how many bytes that were.
    pub(crate) fn prepare(
        &self,
        buffer: &mut Buffer,
        old: BorrowedFd<'_>,
        new: &mut Target<'_>,
        size: u64,
    ) -> Result<u64, Fault> {
        let page = sys::page_size();
        if self.mount.is_none() || size / HUGE * page > CHUNK {
            return Ok(0);
        }
        // A part at the end that is no whole huge page cannot become one.
        for part in 0..size / HUGE {
            data::copy(buffer, old, new, part * HUGE..part * HUGE + page)?;
        }
        Ok(size / HUGE * page)
    }

    /// Does some copying of so many bytes, and takes into account how long this thread had to work for it.
    /// Not the clock: what else the machine does meanwhile says nothing of memory, and the host's faults
    /// count as this thread's work.
    pub(crate) fn timed<T>(&self, bytes: u64, copy: impl FnOnce() -> T) -> T {
        if bytes < LEAST || self.mount.is_none() {
            return copy();
        }
        let start = sys::cpu_time();
        let copied = copy();
        self.took(bytes, sys::cpu_time().saturating_sub(start));
        copied
    }

    fn took(&self, bytes: u64, nanoseconds: u64) {
        let sum = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let time = self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed) + nanoseconds;
        let large = self.large.load(Ordering::Relaxed);
        let rest = self.rest.load(Ordering::Relaxed);
        let enough = if large { TRIAL } else { rest };
        // Whoever sees that it is enough begins anew, and judges.
        if sum < enough || self.bytes.compare_exchange(sum, 0, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        self.nanoseconds.store(0, Ordering::Relaxed);
        let pace = time / (sum >> 20).max(1);
        if !large {
            self.small.store(pace, Ordering::Relaxed);
            self.turn(true);
        } else if pace > self.small.load(Ordering::Relaxed) {
            // Each time later, so that all trials together cost little where there is only untouched memory.
            self.rest.store(rest.saturating_mul(4), Ordering::Relaxed);
            self.turn(false);
        }
    }

    fn turn(&self, large: bool) {
        let Some(mount) = &self.mount else { return };
        let huge = if large { "within_size" } else { "never" };
        // A context that has failed once answers nothing any more.
        let turn = || {
            let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
            let context = fspick(mount, "", flags)?;
            fsconfig_set_string(context.as_fd(), "huge", huge)?;
            fsconfig_reconfigure(context.as_fd())
        };
        // The option must not stay as the move has set it.
        let turned = retry_once(turn).is_ok();
        self.large.store(large && turned, Ordering::Relaxed);
        if !turned {
            self.rest.store(u64::MAX, Ordering::Relaxed);
        }
    }
}

impl Drop for Folios {
    fn drop(&mut self) {
        self.turn(false);
    }
}

/// Whether files of this tmpfs get large folios, which shows in their block size.
fn large(dir: BorrowedFd<'_>) -> Option<bool> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(dir, c".", flags, Mode::RUSR).ok()?;
    ftruncate(&file, 16 << 20).ok()?;
    let status = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
    Some(u64::from(status.stx_blksize) > sys::page_size())
}
