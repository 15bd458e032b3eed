//! Collects warnings about extended attributes that the kernel refuses. No kernel accepts all of them on
//! every kind of entry, and a root without one is better than no root.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{CWD, readlinkat};
use rustix::io::Errno;

use crate::display::Quoted;
use crate::error::{Step, name_of};
use crate::sys::Mutex;

/// The access ACL of a file. If a file has an ACL, the group bits of its mode are the mask of the ACL, not
/// the rights of the group. So if the ACL is lost, the group gets no rights.
pub(crate) const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// The maximum number of warnings in full; further ones are only counted.
const LISTED: usize = 8;

/// The warnings of all threads.
#[derive(Debug)]
pub(crate) struct Skipped {
    noted: Mutex<Vec<String>>,
    more: AtomicU64,
}

/// The path of an entry below the root of its mount, for messages; with an empty name, of `dir` itself. The
/// working directory must be the root of a procfs.
pub(crate) fn path_of(dir: BorrowedFd<'_>, name: &CStr) -> Vec<u8> {
    let link = format!("self/fd/{}", dir.as_raw_fd());
    let mut path = readlinkat(CWD, link, Vec::new()).map(CString::into_bytes).unwrap_or_default();
    if !name.is_empty() && path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
    path
}

impl Default for Skipped {
    fn default() -> Self {
        Skipped { noted: Mutex::new(Vec::with_capacity(LISTED)), more: AtomicU64::new(0) }
    }
}

impl Skipped {
    /// Notes that an attribute of an entry was refused.
    pub(crate) fn attribute(&self, name: &[u8], path: &[u8], errno: Errno) {
        let (error, meaning) = name_of(errno);
        self.note(format!("setxattr {} on {}: {error} ({meaning}); skipped", Quoted(name), Quoted(path)));
    }

    /// Notes that an entry got another name, because its own is taken.
    pub(crate) fn renamed(&self, dir: BorrowedFd<'_>, name: &CStr, to: &CStr) {
        let (path, to) = (path_of(dir, name), Quoted(to.to_bytes()).to_string());
        self.note(format!(
            "{} exists twice, so another process created one of them; both are kept, the second as {to}",
            Quoted(&path)
        ));
    }

    /// Notes another warning.
    pub(crate) fn note(&self, text: String) {
        // Nothing is allocated while the lock is held: a worker that panics there would never release it.
        let mut noted = self.noted.lock();
        if noted.contains(&text) {
            // The attributes of a large file are set twice.
            return;
        }
        if noted.len() < LISTED {
            noted.push(text);
        } else {
            self.more.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the warnings, each prefixed with `step`.
    pub(crate) fn warnings(self, step: Step) -> Vec<String> {
        let mut list = self.noted.into_inner();
        for text in &mut list {
            *text = format!("{step}: {text}");
        }
        match self.more.into_inner() {
            0 => {}
            more => list.push(format!("{step}: {more} more warnings like these")),
        }
        list
    }
}
