//! Counts threads that ended or were lost, and waits for all of them.

#[cfg(not(loom))]
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering;

use super::futex::Event;

// The models in `loom/` compile this file, too.
#[cfg(loom)]
use crate::emulated::AtomicU32;

/// The threads of a crew that work no more.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ended: AtomicU32,
    /// Threads that panicked.
    lost: AtomicU32,
    /// Notified when a thread ends or is lost.
    tick: Event,
}

impl Tally {
    /// Counts the calling thread as ended, or as lost. The last thing that it does for its crew.
    pub(crate) fn count(&self, lost: bool) {
        let counter = if lost { &self.lost } else { &self.ended };
        counter.fetch_add(1, Ordering::Release);
        self.tick.notify();
    }

    /// Waits until `started` threads have ended or were lost. `lost` is called once if any was lost, also by
    /// the last of them; `meanwhile` once a second.
    pub(crate) fn wait(&self, started: u32, meanwhile: &dyn Fn(), lost: &dyn Fn()) {
        let mut reported = false;
        loop {
            let seen = self.tick.seen();
            // Read once: a thread lost after this must not end the loop unreported.
            let gone = self.lost.load(Ordering::Acquire);
            if !reported && gone > 0 {
                reported = true;
                lost();
            }
            if self.ended.load(Ordering::Acquire) + gone == started {
                return;
            }
            if self.tick.wait_for(seen, 1) {
                meanwhile();
            }
        }
    }
}
