//! Setting extended attributes.

use std::io;

use rustix::fd::{AsRawFd, BorrowedFd};

use crate::source::notes::Notes;

/// Sets an extended attribute, and returns whether it could. A failure is a note.
pub(super) fn xattr(notes: &mut Notes, fd: BorrowedFd<'_>, path: &[u8], name: &[u8], value: &[u8]) -> bool {
    // A descriptor of a link or a device node cannot be used itself.
    let at = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let set = rustix::fs::setxattr(&*at, name, value, rustix::fs::XattrFlags::empty());
    if let Err(errno) = set {
        let why = io::Error::from(errno).kind();
        notes.add(&format!("{} could not be set: {why}", name.escape_ascii()), path);
    }
    set.is_ok()
}
