//! The `/init`: one call of the library re-homes the system, then the real init is executed. If that fails,
//! `last` follows `onerror=`.
//!
//! PID 1 must not exit. Whatever fails, something else is tried, down to a message and `panic=`.
#![no_std]
#![no_main]

extern crate alloc;
// See build.rs.
#[cfg(not(freestanding))]
extern crate std;

mod last;
mod process;
mod sys;

use repot::ladder::{Failure, rehome_with};
use repot::log::{Level, Log, print};
use repot::plan::Refusal;
use repot::runtime::FEATURES;

use process::Process;

const VERSION: &str = concat!("repot-init ", env!("CARGO_PKG_VERSION"), "\n");

/// Does everything that `main` does. Returns only if this is not PID 1.
fn run(process: &Process) -> i32 {
    let version = process.invocation.argument().is_some_and(|argument| argument == c"--version");
    if version && !rustix::process::getpid().is_init() {
        print(VERSION);
        print(FEATURES);
        print("\n");
        return 0;
    }
    match rehome_with(&|known| process.learn(known)) {
        Ok(mut outcome) => {
            outcome.vacate_init(&process.invocation);
            outcome.execute(&process.invocation);
            last::no_init(process)
        }
        Err(Failure::Refused(Refusal::NotFirst)) => {
            Log::open(false).line(Level::Error, format_args!("{}", Refusal::NotFirst));
            2
        }
        Err(failure) => {
            let log = process.log();
            log.line(Level::Error, format_args!("{failure}"));
            match failure {
                // Executes nothing beside a payload, and says so.
                Failure::Unseen(_) => last::in_place(process),
                Failure::Refused(_) | Failure::Torn(_) | _ => last::resort(log, process),
            }
        }
    }
}
