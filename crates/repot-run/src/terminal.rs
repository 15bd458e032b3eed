//! The terminal of the program: the console, in a session that this process leads.
//!
//! When the leader of a session ends, the kernel hangs its terminal up, and a serial port then drops what it
//! has not sent yet. PID 1 does not end, so it is the leader. The program is a process group of its own, in
//! the foreground: Ctrl-C reaches it alone. Ctrl-Z does not stop it, since nobody could continue it: the
//! kernel counts the children of PID 1 as orphans.

use core::time::Duration;

use rustix::process::{getpid, ioctl_tiocsctty, setpgid, setsid};
use rustix::termios::{isatty, tcdrain, tcsetpgrp};

use crate::log::warn;
use crate::sys::{self, SIGKILL, clock};

/// How long the console may take to send the rest. A serial port holds 4 KiB: 5 s at 9600 baud.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the console the terminal of a session of this process. Without a terminal there is no job control,
/// and nothing else is missing.
pub(crate) fn take() {
    // In a container this process may lead the session of a terminal already.
    let _ = setsid();
    let _ = ioctl_tiocsctty(sys::streams()[0]);
}

/// Makes this child a process group of its own, and gives it the terminal. SIGTTOU must be blocked: until
/// then the child is in the background.
pub(crate) fn foreground() {
    let _ = setpgid(None, None);
    let _ = tcsetpgrp(sys::streams()[0], getpid());
}

/// Waits until the console has sent what was written to it, but not for ever: it may be stopped (Ctrl-S).
pub(crate) fn drain() {
    if !sys::streams().iter().any(isatty) {
        return;
    }
    // A child, since tcdrain has no time limit. Without memory for a child, the machine ends all the same.
    let wait = || {
        for stream in sys::streams() {
            let _ = tcdrain(stream);
        }
    };
    let Ok(child) = sys::fork(&wait) else { return };
    let deadline = clock() + PATIENCE;
    loop {
        while let Some((pid, _)) = sys::reap() {
            if pid == child {
                return;
            }
        }
        let left = deadline.saturating_sub(clock());
        if left.is_zero() || sys::next_signal(Some(left)).is_none() {
            warn(format_args!("run: the console has not sent its output within {} s", PATIENCE.as_secs()));
            sys::send(child, SIGKILL);
            return;
        }
    }
}
