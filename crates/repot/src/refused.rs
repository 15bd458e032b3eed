//! Extended attributes that the kernel does not take: told, and left out. No kernel takes all of them on every kind of entry, and a
//! root without one is better than none.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use crate::error::{Quoted, Step, name_of};
use crate::sys::Mutex;

/// The access list of a file. With one, the bits of the group say what anybody who is named in it may have at most, not what the
/// group has: without it, the group gets nothing.
pub(crate) const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// More than these are counted only.
const TOLD: usize = 8;

/// What was refused, by any thread.
#[derive(Debug)]
pub(crate) struct Refused {
    told: Mutex<Vec<String>>,
    more: AtomicU64,
}

impl Default for Refused {
    fn default() -> Self {
        Refused { told: Mutex::new(Vec::with_capacity(TOLD)), more: AtomicU64::new(0) }
    }
}

impl Refused {
    /// Notes that an attribute of an entry was refused.
    pub(crate) fn attribute(&self, name: &[u8], path: &[u8], errno: Errno) {
        let (error, meaning) = name_of(errno);
        self.note(format!("setxattr {} of {}: {error} ({meaning}); left out", Quoted(name), Quoted(path)));
    }

    /// Notes what else there is to tell.
    pub(crate) fn note(&self, text: String) {
        // Nothing is allocated while the lock is held: a thread that is lost meanwhile would keep it.
        let mut told = self.told.lock();
        if told.len() < TOLD {
            told.push(text);
        } else {
            self.more.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What there is to tell.
    pub(crate) fn told(self, step: Step) -> Vec<String> {
        let mut list = self.told.into_inner();
        for text in &mut list {
            *text = format!("{step}: {text}");
        }
        match self.more.into_inner() {
            0 => {}
            more => list.push(format!("{step}: {more} more attributes that could not be set")),
        }
        list
    }
}
