//! How far a move has come; readable from any thread while it runs.

use core::sync::atomic::{AtomicU64, Ordering};

/// What has been done so far.
#[derive(Debug, Default)]
pub struct Progress {
    entries: AtomicU64,
    bytes: AtomicU64,
    kept: AtomicU64,
    twice: AtomicU64,
    peak: AtomicU64,
}

impl Progress {
    /// Names moved, directories included.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of file contents moved.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Mount points left in the old tree, to be removed when the mounts have moved.
    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// The maximum number of bytes that were in both trees at one time.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    pub(crate) fn add_entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_kept(&self) {
        self.kept.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that are in both trees now.
    pub(crate) fn copied(&self, bytes: u64) {
        self.add_bytes(bytes);
        self.doubled(bytes);
    }

    pub(crate) fn doubled(&self, bytes: u64) {
        let twice = self.twice.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(twice, Ordering::Relaxed);
    }

    pub(crate) fn freed(&self, bytes: u64) {
        self.twice.fetch_sub(bytes, Ordering::Relaxed);
    }
}
