//! What is left when nothing works: an init in place, or a message and what the user wants to happen then.

use alloc::vec::Vec;

use repot::handoff;
use repot::options::OnError;
use repot::report::{Level, Log};
use repot::sys::{Invocation, sleep};
use rustix::system::{RebootCommand, reboot};

/// Executes the first of the usual inits, the root being as the kernel left it.
pub(crate) fn in_place(log: &Log, invocation: &Invocation) -> ! {
    let error = handoff::execute(&crate::usual_inits(), invocation, &|_| ());
    log.line(Level::Error, format_args!("{error}; no init could be executed"));
    resort(log, OnError::Continue, 0, invocation)
}

/// Does as `onerror=` says, and by default as the kernel would with `panic=`.
pub(crate) fn resort(log: &Log, onerror: OnError, panic: i32, invocation: &Invocation) -> ! {
    let tell = |text| log.line(Level::Error, format_args!("{text}"));
    match onerror {
        OnError::Shell => {
            let shells: Vec<Vec<u8>> =
                [&b"/bin/sh"[..], b"/bin/bash", b"/bin/busybox"].map(<[u8]>::to_vec).into();
            tell("starting a shell (onerror=shell)");
            let error = handoff::execute(&shells, invocation, &|_| ());
            log.line(Level::Error, format_args!("{error}; there is no shell either"));
        }
        OnError::Reboot => end(log, RebootCommand::Restart, "restarting (onerror=reboot)"),
        OnError::Poweroff => end(log, RebootCommand::PowerOff, "switching off (onerror=poweroff)"),
        OnError::Halt => end(log, RebootCommand::Halt, "halting (onerror=halt)"),
        OnError::Continue => {}
    }
    if panic < 0 {
        end(log, RebootCommand::Restart, "restarting (panic= is negative)");
    } else if panic > 0 {
        for left in (1..=panic).rev() {
            if left == panic || left % 10 == 0 || left <= 5 {
                log.line(Level::Error, format_args!("restarting in {left} s (panic={panic})"));
            }
            sleep(1);
        }
        end(log, RebootCommand::Restart, "restarting");
    }
    tell("nothing more can be done; the machine stays as it is");
    loop {
        sleep(3600);
    }
}

fn end(log: &Log, how: RebootCommand, text: &str) {
    log.line(Level::Error, format_args!("{text}"));
    if reboot(how).is_err() {
        log.line(Level::Error, format_args!("the kernel refuses"));
    }
}
