//! The progress of a move, readable from any thread while it runs.

use core::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::AsFd;

use crate::facts::Facts;
use crate::facts::packed::Found;
use crate::options::Keep;
use crate::site::Site;
use crate::walk::open;
use crate::walk::survey::{Survey, survey};

/// What the counters reach, as [`Progress`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

impl Total {
    /// To be called before the tree changes: what is removed instead of moved is counted here.
    pub(crate) fn of(site: &Site, facts: &Facts, keep: Keep) -> Total {
        let Survey { entries, contents, .. } = facts.survey;
        let mut total = Total { entries, bytes: contents };
        let modules = (keep != Keep::All).then_some(c".repot-modules");
        let mut payload = None;
        if let Found::Index(index, _) = &facts.payload {
            total = Total { entries: entries + index.entries, bytes: contents + index.bytes };
            payload = Some(c".repot-payload");
        }
        for name in modules.into_iter().chain(payload) {
            let found = open(&site.old, name).and_then(|folder| survey(folder.as_fd(), 0));
            let Ok(Survey { entries, contents, .. }) = found else { continue };
            total.entries = total.entries.saturating_sub(entries + 1);
            total.bytes = total.bytes.saturating_sub(contents);
        }
        total
    }
}

/// Counters of a move.
#[derive(Debug, Default)]
pub struct Progress {
    entries: AtomicU64,
    bytes: AtomicU64,
    duplicated: AtomicU64,
    peak: AtomicU64,
}

impl Progress {
    /// Names moved so far, directories included.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of file contents moved so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Peak of the bytes that were in both trees at one time.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    pub(crate) fn add_entry(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were copied and are now in both trees.
    pub(crate) fn copied(&self, bytes: u64) {
        self.add_bytes(bytes);
        self.duplicate(bytes);
    }

    /// Counts bytes that are now in both trees.
    pub(crate) fn duplicate(&self, bytes: u64) {
        let duplicated = self.duplicated.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(duplicated, Ordering::Relaxed);
    }

    /// Counts bytes that are in the new tree only.
    pub(crate) fn freed(&self, bytes: u64) {
        self.duplicated.fetch_sub(bytes, Ordering::Relaxed);
    }
}
