//! PID 1 of a machine that exists for one program: it mounts what programs expect, runs the program that
//! `/.repot-run` describes, reaps all children, passes signals on, and ends the machine with the exit code.
//!
//! PID 1 must not exit. Whatever fails is logged, and the machine ends as `run.onexit=` says.
#![no_std]
#![no_main]

extern crate alloc;
// See build.rs.
#[cfg(not(freestanding))]
extern crate std;

mod child;
mod drivers;
mod end;
mod log;
mod network;
mod prepare;
mod supervise;
mod sys;
mod terminal;

use alloc::format;
use core::time::Duration;

use repot::display::Quoted;
use repot::error::name_of;
use repot::log::print;
use repot::run::{OnExit, Program};
use repot::runtime::{Invocation, sleep};
use rustix::system::{RebootCommand, reboot};

use child::Outcome;
use log::{error, info, warn};

const VERSION: &str = concat!("repot-run ", env!("CARGO_PKG_VERSION"), "\n");

const HELP: &str = "\
Runs one program as PID 1 and ends the machine with its exit code.

The program is described in /.repot-run, which `repot pack --run` writes:

    repot-run 1
    arg /usr/sbin/nginx
    arg -g
    arg daemon off;
    env PATH=/usr/sbin:/usr/bin:/sbin:/bin
    workdir /
    user 0 0
    stop 15

On the kernel command line: run.grace=SECONDS, run.onexit=poweroff|reboot|panic|shell|restart,
run.exit=PATH|virtio:NAME|vsock:PORT|port:NUMBER|debug-exit, run.share=9p|virtiofs[,ro]:TAG:PATH. See
docs/run.md.
";

/// The exit code of a runner that could not start anything.
const NOTHING_RUN: i32 = 125;

/// Does everything that `main` does. Returns only if this is not PID 1.
fn run(invocation: &Invocation) -> i32 {
    match invocation.argument().map(|argument| argument.to_bytes()) {
        Some(b"--version") => {
            print(VERSION);
            return 0;
        }
        Some(b"--help") => {
            print(HELP);
            return 0;
        }
        _ => {}
    }
    if !rustix::process::getpid().is_init() {
        error(format_args!("run: this is not PID 1; nothing was done"));
        return 2;
    }
    // From here on no signal is lost: each waits until the supervisor takes it.
    sys::block_signals();
    prepare::mounts();
    log::open();
    prepare::console();
    terminal::take();
    // Ctrl-Alt-Del becomes SIGINT to this process.
    let _ = reboot(RebootCommand::CadOff);
    let (program, found) = describe();
    if !found {
        end::end(&program, NOTHING_RUN);
    }
    prepare::machine(&program);
    prepare::tidy();
    if !prepare::shares(&program) {
        end::end(&program, NOTHING_RUN);
    }
    loop {
        let begun = sys::clock();
        let code = run_once(&program);
        if program.onexit != OnExit::Restart || end::is_asked() {
            end::end(&program, code);
        }
        end::report(&program, code);
        // A program that ends at once must not take the whole machine.
        if sys::clock() - begun < Duration::from_secs(1) {
            sleep(1);
        }
    }
}

/// Reads the description and the kernel command line. If there is no description, the rest of what was read
/// still says how the machine ends.
fn describe() -> (Program, bool) {
    let path = format!("/{}", repot::run::DESCRIPTION);
    let (mut program, found) = match prepare::read(path.as_bytes()) {
        Err(errno) => {
            let (name, meaning) = name_of(errno);
            error(format_args!("run: openat \"{path}\": {name} ({meaning}); no program to run"));
            (Program::default(), false)
        }
        Ok(text) => match Program::parse(&text) {
            Err(flaw) => {
                error(format_args!("run: {flaw}"));
                (Program::default(), false)
            }
            Ok(program) => (program, true),
        },
    };
    let line = prepare::read(b"/proc/cmdline").unwrap_or_default();
    for warning in program.apply(&repot::options::cmdline::parse(&line)) {
        warn(format_args!("run: {warning}"));
    }
    (program, found)
}

/// Runs the program until it ends, and returns its exit code.
fn run_once(program: &Program) -> i32 {
    let name = program.args.first().map_or(&b""[..], |name| name.to_bytes());
    let pid = match child::start(program) {
        Ok(pid) => pid,
        Err(failed) => {
            error(format_args!("run: {failed}"));
            return failed.code();
        }
    };
    match supervise::until_ended(program, pid) {
        Outcome::Exited(code) => {
            info(format_args!("run: {} exited with {code}", Quoted(name)));
            code
        }
        Outcome::Killed(signal) => {
            error(format_args!("run: {} was killed by signal {signal}", Quoted(name)));
            128 + signal
        }
    }
}
