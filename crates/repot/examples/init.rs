//! An `/init` with the standard library, in one call: re-home the system, then execute the real init.
//!
//! Link it statically, for instance with `--target x86_64-unknown-linux-musl`. A dynamic linker and shared
//! libraries would be in use while the tree moves. The image needs `/dev/console` or `/dev/null`: if the
//! kernel starts a program with closed standard streams, `std` opens `/dev/null` for them, and aborts if it
//! cannot.

use repot::log::{Level, Log};
use repot::runtime::{Allocator, Invocation};
use std::process::{ExitCode, id};

/// `std` aborts if memory runs out. With this allocator the move is rolled back instead.
#[global_allocator]
static MALLOC: Allocator = Allocator;

fn main() -> ExitCode {
    Allocator::set_aside();
    let invocation = Invocation::of_process();
    match repot::rehome() {
        // `/` is a tmpfs now, unless the log says why not. Mount what the real init needs here.
        Ok(outcome) => outcome.execute(&invocation),
        Err(failure) => Log::open(id() == 1).line(Level::Error, format_args!("{failure}")),
    }
    // If PID 1 exits, the kernel panics.
    while id() == 1 {
        std::thread::park();
    }
    ExitCode::from(2)
}
