//! Uses large folios in the new tmpfs while the tree moves, as long as they are faster.
//!
//! From 6.14 on, a tmpfs with `huge=within_size` allocates folios as large as one write, never beyond the end
//! of the file. A file without holes takes no more memory that way, in far fewer allocations. From 6.17 on,
//! it allocates the largest folio that fits in the file, huge pages included, however small the write, and
//! fills the rest with zeros.
//!
//! Huge pages come from memory that was free as a whole. In a virtual machine that memory was never touched
//! or was given back, so the host must provide it page by page, several times slower than pages that were
//! just freed in the old tree (docs/bench). So `prepare` first puts a single page where each huge page would
//! begin. The folios are then at most as large as one write of `data`.
//!
//! Smaller folios may come from untouched memory too, and the kernel does not show that. So both ways are
//! timed. Large folios stay on while they are faster, and are tried again later. At the end the option is
//! restored.
//!
//! Large folios are tried first, because a file that was created without them never takes them well
//! (`mapping_set_large_folios`). Before 6.17 it takes none. From 6.17 on it is written one page at a time,
//! and the first write fills its whole folio with zeros.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, ftruncate, openat, statx};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick};

use super::data::{self, Buffer, CHUNK, Target};
use crate::error::{Fault, retry_once};
use crate::sys;

/// The size of a huge page, in bytes. If it is larger, `prepare` places more pages than needed.
const HUGE: u64 = 2 << 20;

/// Bytes copied into large folios before they are judged.
const TRIAL: u64 = 2 << 20;
/// Copies below this size, in bytes, measure the system calls rather than the memory.
const MIN_TIMED: u64 = 64 << 10;

/// The current setting, and the measurements behind it.
#[derive(Debug)]
pub(crate) struct Folios {
    /// The mount of the tmpfs; `None` if its option must not change.
    mount: Option<OwnedFd>,
    /// Whether large folios are on.
    large: AtomicBool,
    /// Bytes to copy into single pages before large folios are tried again. Starts at a quarter of [`TRIAL`]
    /// and is quadrupled each time large folios lose.
    pause: AtomicU64,
    /// Bytes copied since the last judgement.
    bytes: AtomicU64,
    /// CPU time of these copies.
    nanoseconds: AtomicU64,
    /// Nanoseconds per MiB with single pages. 0 until they were timed, which makes the first judgement turn
    /// to single pages.
    single_pages: AtomicU64,
}

impl Folios {
    /// Leaves the option of the file system alone.
    pub(crate) fn unchanged() -> Self {
        Folios {
            mount: None,
            large: AtomicBool::new(false),
            pause: AtomicU64::new(TRIAL / 4),
            bytes: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
            single_pages: AtomicU64::new(0),
        }
    }

    /// Turns large folios on for the tmpfs of this mount, whose root is `dir`, unless its files get them
    /// already.
    pub(crate) fn try_large(mount: &OwnedFd, dir: BorrowedFd<'_>) -> Self {
        let mut folios = Folios::unchanged();
        if has_large_folios(dir) == Some(false) {
            folios.mount = fcntl_dupfd_cloexec(mount, 0).ok();
            folios.set_large(true);
        }
        folios
    }

    /// Copies the first page of each part of an empty file that could become one huge page; later writes then
    /// get smaller folios. The file must not have its final length yet, or the first page would get a huge
    /// page. Does nothing if these pages together exceed one chunk. Returns the number of bytes copied.
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
        // A shorter part at the end cannot become a huge page.
        for part in 0..size / HUGE {
            data::copy(buffer, old, new, part * HUGE..part * HUGE + page)?;
        }
        Ok(size / HUGE * page)
    }

    /// Runs `copy`, which copies `bytes`, and records its CPU time. Elapsed time would include whatever else
    /// the machine does, while page faults of the host count as CPU time of this thread.
    pub(crate) fn timed<T>(&self, bytes: u64, copy: impl FnOnce() -> T) -> T {
        if bytes < MIN_TIMED || self.mount.is_none() {
            return copy();
        }
        let start = sys::cpu_time();
        let copied = copy();
        self.record(bytes, sys::cpu_time().saturating_sub(start));
        copied
    }

    fn record(&self, bytes: u64, nanoseconds: u64) {
        let sum = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let time = self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed) + nanoseconds;
        let large = self.large.load(Ordering::Relaxed);
        let pause = self.pause.load(Ordering::Relaxed);
        let judged_at = if large { TRIAL } else { pause };
        // The thread that resets the counter judges.
        if sum < judged_at
            || self.bytes.compare_exchange(sum, 0, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        self.nanoseconds.store(0, Ordering::Relaxed);
        let ns_per_mib = time / (sum >> 20).max(1);
        if !large {
            self.single_pages.store(ns_per_mib, Ordering::Relaxed);
            self.set_large(true);
        } else if ns_per_mib > self.single_pages.load(Ordering::Relaxed) {
            // The pause grows each time, so that all trials together cost little if all memory is untouched.
            self.pause.store(pause.saturating_mul(4), Ordering::Relaxed);
            self.set_large(false);
        }
    }

    fn set_large(&self, large: bool) {
        let Some(mount) = &self.mount else { return };
        let huge = if large { "within_size" } else { "never" };
        // A context that has failed once returns no further results, so each try picks a new one.
        let reconfigure = || {
            let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
            let context = fspick(mount, "", flags)?;
            fsconfig_set_string(context.as_fd(), "huge", huge)?;
            fsconfig_reconfigure(context.as_fd())
        };
        // Retried once: the option must not stay as the move has set it.
        let done = retry_once(reconfigure).is_ok();
        self.large.store(large && done, Ordering::Relaxed);
        if !done {
            self.pause.store(u64::MAX, Ordering::Relaxed);
        }
    }
}

impl Drop for Folios {
    fn drop(&mut self) {
        self.set_large(false);
    }
}

/// Whether files of this tmpfs get large folios, judged by their block size (`st_blksize`).
fn has_large_folios(dir: BorrowedFd<'_>) -> Option<bool> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(dir, c".", flags, Mode::RUSR).ok()?;
    ftruncate(&file, 16 << 20).ok()?;
    let status = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).ok()?;
    Some(u64::from(status.stx_blksize) > sys::page_size())
}
