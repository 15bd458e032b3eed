//! The last resort: an init in place, or a message and then `onerror=`.
//!
//! Nothing is allocated here: the memory may be exhausted.

use core::ffi::CStr;

use repot::error::name_of;
use repot::facts::INITS;
use repot::facts::packed::is_packed;
use repot::handoff::{self, NotExecuted};
use repot::log::{Level, Log};
use repot::options::OnError;
use repot::runtime::sleep;
use rustix::fs::{Access, access};
use rustix::system::{RebootCommand, reboot};

use crate::process::Process;

const SHELLS: [&CStr; 3] = [c"/bin/sh", c"/bin/bash", c"/bin/busybox"];

/// Where `repot pack` and `repot append` put the image's own `/init`.
const CHAIN: &CStr = c"/init.real";

/// Executes the image's own init or the first of the usual ones on the root as the kernel left it. If the
/// image has a payload, no init is executed: the root outside the payload is no system. If a digest is set,
/// nothing vouches for an init outside the payload.
pub(crate) fn in_place(process: &Process) -> ! {
    if is_packed() || process.pinned() {
        let why = if is_packed() {
            "the payload was not unpacked, so the image holds no system to boot"
        } else {
            "payload= is set, and nothing was verified, so no init is executed"
        };
        let log = process.reopened_log();
        log.line(Level::Error, format_args!("{why}"));
        resort(&log, process)
    }
    handoff::console(process.is_machine());
    let chain = access(CHAIN, Access::EXEC_OK).is_ok().then_some(CHAIN);
    let inits = chain.into_iter().chain(INITS);
    handoff::execute(inits, chain, &process.invocation, &|_| (), &|failed| report(process, failed));
    no_init(process)
}

/// Logs an init that could not be executed.
pub(crate) fn report(process: &Process, failed: &NotExecuted<'_>) {
    process.reopened_log().line(Level::Error, format_args!("{failed}"));
}

/// Called when execve failed for every init.
pub(crate) fn no_init(process: &Process) -> ! {
    let log = process.reopened_log();
    log.line(Level::Error, format_args!("execve failed for every init"));
    resort(&log, process)
}

/// Follows `onerror=`; the default follows `panic=`, as the kernel would.
pub(crate) fn resort(log: &Log, process: &Process) -> ! {
    let mut log = log;
    let reopened;
    let panic = process.panic();
    match process.onerror() {
        // The digest does not cover a shell of the initramfs, nor the file that asks for one.
        OnError::Shell if process.pinned() => {
            log.line(
                Level::Error,
                format_args!("no shell is started (onerror=shell), because payload= is set"),
            );
        }
        OnError::Shell => {
            log.line(Level::Error, format_args!("starting a shell (onerror=shell)"));
            let invocation = process.invocation.without_arguments();
            handoff::execute(SHELLS, None, &invocation, &|_| (), &|failed| report(process, failed));
            reopened = process.reopened_log();
            log = &reopened;
            log.line(
                Level::Error,
                format_args!("no shell is executable either: tried /bin/sh, /bin/bash and /bin/busybox"),
            );
        }
        OnError::Reboot => end(log, RebootCommand::Restart, "rebooting (onerror=reboot)"),
        OnError::Poweroff => end(log, RebootCommand::PowerOff, "powering off (onerror=poweroff)"),
        OnError::Halt => end(log, RebootCommand::Halt, "halting (onerror=halt)"),
        OnError::Continue => {}
    }
    if panic < 0 {
        end(log, RebootCommand::Restart, "rebooting (panic= is negative)");
    } else if panic > 0 {
        for left in (1..=panic).rev() {
            if left == panic || left % 10 == 0 || left <= 5 {
                log.line(Level::Error, format_args!("rebooting in {left} s (panic={panic})"));
            }
            sleep(1);
        }
        end(log, RebootCommand::Restart, "rebooting");
    }
    log.line(Level::Error, format_args!("nothing left to try; the machine stays up"));
    loop {
        sleep(3600);
    }
}

fn end(log: &Log, command: RebootCommand, text: &str) {
    log.line(Level::Error, format_args!("{text}"));
    rustix::fs::sync();
    if let Err(errno) = reboot(command) {
        let (name, meaning) = name_of(errno);
        log.line(Level::Error, format_args!("reboot: {name} ({meaning}, {})", errno.raw_os_error()));
    }
}
