//! Waits for the program: reaps every child, passes signals on, and kills the program if it ignores the one
//! that asks it to end.

use core::time::Duration;

use repot::run::Program;
use rustix::process::Pid;

use crate::child::Outcome;
use crate::end;
use crate::log::warn;
use crate::sys::{self, SIGCHLD, SIGCONT, SIGINT, SIGKILL, SIGPWR, SIGTERM, clock};

/// Waits until the process `main` has ended, and reaps whatever else ends in the meantime.
pub(crate) fn until_ended(program: &Program, main: Pid) -> Outcome {
    let mut deadline: Option<Duration> = None;
    loop {
        while let Some((pid, outcome)) = sys::reap() {
            if pid == main {
                return outcome;
            }
        }
        let left = deadline.map(|deadline| deadline.saturating_sub(clock()));
        match sys::next_signal(left) {
            None => {
                if deadline.take().is_some() {
                    warn(format_args!("run: not ended within {} s; killing it", program.grace));
                    sys::send(main, SIGKILL);
                }
            }
            Some(SIGCHLD) => {}
            Some(SIGTERM | SIGINT | SIGPWR) => {
                end::ask();
                sys::send(main, program.stop);
                // A stopped process takes no signal but SIGKILL until it continues.
                sys::send(main, SIGCONT);
                deadline.get_or_insert_with(|| clock() + Duration::from_secs(program.grace.into()));
            }
            Some(signal) => sys::send(main, signal),
        }
    }
}

/// Ends every other process: SIGTERM, and SIGKILL after the grace period. Returns when none is left.
pub(crate) fn end_all(program: &Program) {
    sys::send_all(SIGTERM);
    sys::send_all(SIGCONT);
    let deadline = clock() + Duration::from_secs(program.grace.into());
    while !sys::reap_all() {
        let left = deadline.saturating_sub(clock());
        if left.is_zero() {
            break;
        }
        sys::next_signal(Some(left));
    }
    // A process that forks faster than one signal reaches its children is hit again: SIGKILL to all is atomic
    // for those that exist (kernel/signal.c holds the lock of the task list).
    while !sys::reap_all() {
        sys::send_all(SIGKILL);
        sys::next_signal(Some(Duration::from_secs(1)));
    }
}
