//! An `/init` with the standard library, in one call: re-home the system, then execute the real init.
//!
//! Link it statically, for instance with `--target x86_64-unknown-linux-musl`. A dynamic linker and shared
//! libraries would be in use while the tree moves.

use repot::runtime::Invocation;
use std::process::{ExitCode, id};

fn main() -> ExitCode {
    let invocation = Invocation::of_process();
    match repot::rehome() {
        // `/` is a tmpfs now, unless the log says why not. Mount what the real init needs here.
        Ok(outcome) => outcome.execute(&invocation),
        Err(failure) => eprintln!("init: {failure}"),
    }
    // If PID 1 exits, the kernel panics.
    while id() == 1 {
        std::thread::park();
    }
    ExitCode::from(2)
}
