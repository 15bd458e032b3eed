//! Whether somebody else holds a file.

use rustix::fd::{AsRawFd, BorrowedFd};

/// Whether anybody else has the file open or mapped, the kernel included: a loop device, for instance. `file`
/// must be the only descriptor of this program for it.
///
/// The kernel grants a write lease only to a sole user (`check_conflicting_open`, fs/locks.c), on ramfs and
/// tmpfs from 5.10 on. ramfs on 7.x grants none at all (EINVAL): there, nobody else seems to hold anything.
pub(crate) fn is_held(file: BorrowedFd<'_>) -> bool {
    let file = file.as_raw_fd();
    // SAFETY: fcntl on a plain number; neither command has memory for an argument.
    let set = |lease: libc::c_int| unsafe { libc::fcntl(file, libc::F_SETLEASE, lease) };
    if set(libc::F_WRLCK) == 0 {
        // With the lease still set, opening the file would wait for its end.
        if set(libc::F_UNLCK) != 0 {
            set(libc::F_UNLCK);
        }
        return false;
    }
    super::last_error() == rustix::io::Errno::AGAIN
}
