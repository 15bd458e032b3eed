//! What is in both trees while a move runs: files of which a part has been freed, and directories that are
//! not empty yet.
//!
//! A name that is in both trees says nothing about the two entries: another process may have created one of
//! them. So entries are recognized by their inode numbers. The numbers of an entry are noted before anything
//! of it is freed, and forgotten once it is in one tree only. The size of this record is bounded by the
//! number of workers and of directories in which something appeared.

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::sys::Mutex;

/// What an entry of the destination is that has the name of an entry of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// The same entry, whole.
    Moved,
    /// A directory to merge, or a part of the same file.
    Partly,
    /// Another entry.
    Other,
}

/// The record of one move.
#[derive(Debug, Default)]
pub(super) struct Both {
    state: Mutex<State>,
    lost: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Old and new inode numbers.
    pairs: Vec<(u64, u64)>,
    /// Old inode numbers of the directories that stay.
    directories: Vec<u64>,
}

impl Both {
    /// Notes that a part of a file is about to be freed.
    pub(super) fn split(&self, old: u64, new: u64) {
        self.state.lock().pairs.push((old, new));
    }

    /// Notes that a file is in the new tree only.
    pub(super) fn whole(&self, old: u64) {
        self.state.lock().pairs.retain(|pair| pair.0 != old);
    }

    /// Notes that a directory stays for now. Returns whether this pass did not know.
    pub(super) fn stay(&self, old: u64) -> bool {
        insert(&mut self.state.lock().directories, old)
    }

    /// Forgets the directories that stay: another pass begins.
    pub(super) fn next_pass(&self) {
        self.state.lock().directories.clear();
    }

    /// The inode numbers of the directories that stay although they were moved.
    pub(super) fn stays(&self) -> Vec<u64> {
        self.state.lock().directories.clone()
    }

    /// Whether these two are parts of one entry.
    pub(super) fn pair(&self, old: u64, new: u64) -> Existing {
        if self.state.lock().pairs.contains(&(old, new)) { Existing::Partly } else { Existing::Other }
    }

    /// Notes that a worker was lost, perhaps between copying an entry and removing its old name.
    pub(super) fn lost_worker(&self) {
        self.lost.store(true, Ordering::Release);
    }

    pub(super) fn has_lost_worker(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

/// Adds a number to a short list. Returns whether it is new.
fn insert(list: &mut Vec<u64>, number: u64) -> bool {
    let new = !list.contains(&number);
    if new {
        list.push(number);
    }
    new
}

/// The longest name of an entry, in bytes (NAME_MAX).
const LONGEST: usize = 255;

/// The name that an entry gets if another one has its own.
pub(super) fn spare_name(name: &CStr, number: u32) -> CString {
    let suffix = format!(".repot{number}").into_bytes();
    let name = name.to_bytes();
    let kept = name.len().min(LONGEST - suffix.len());
    CString::new([&name[..kept], &suffix].concat()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_name_fits() {
        assert_eq!(spare_name(c"log", 1).to_bytes(), b"log.repot1");
        let long = CString::new([b'x'; 255]).unwrap();
        let spare = spare_name(&long, 12);
        assert_eq!(spare.to_bytes().len(), 255);
        assert!(spare.to_bytes().ends_with(b"x.repot12"));
    }

    #[test]
    fn what_is_whole_is_forgotten() {
        let both = Both::default();
        both.split(1, 11);
        assert_eq!(both.pair(1, 11), Existing::Partly);
        assert_eq!(both.pair(1, 12), Existing::Other);
        both.whole(1);
        assert_eq!(both.pair(1, 11), Existing::Other);
        assert!(both.stay(3) && !both.stay(3));
        both.next_pass();
        assert!(both.stay(3));
        assert_eq!(both.stays(), [3]);
    }
}
