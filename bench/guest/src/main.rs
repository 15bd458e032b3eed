//! The static program that runs inside the benchmarks.
//!
//! As `/sbin/init` it stands in for the real init and reports when it started and which tree it found.
//! Otherwise the first argument selects a mover to compare with, a measurement, or memory to hold. It prints
//! lines that begin with `bench `, because the init before it may write to the same pipe.

mod arrival;
mod boot;
mod classic;
mod copy;
mod floor;
mod hold;
mod sys;
mod tally;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [_, "classic", old, new] => classic::relocate(Path::new(old), Path::new(new)),
        [_, "floor", old, new, threads] => floor::relocate(Path::new(old), Path::new(new), threads),
        [_, "copy", from, to, rest @ ..] => copy::measure(Path::new(from), Path::new(to), rest),
        [_, "hold", what, rest] => hold::hold(what, rest),
        [_, "first"] => arrival::first(),
        [_, "tally", root] => tally::tell(Path::new(root)),
        ["/init", ..] if std::process::id() == 1 && arrival::machine() == Some("classic") => boot::boot(),
        _ if std::process::id() == 1 => arrival::arrive(),
        _ => Err("not to be called by hand".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The monotonic clock, which all processes share, and this process's CPU time, both in nanoseconds.
fn stamp() -> String {
    use rustix::time::{ClockId, clock_gettime};
    let [clock, own] = [ClockId::Monotonic, ClockId::ProcessCPUTime].map(clock_gettime);
    let nanoseconds = |time: rustix::time::Timespec| time.tv_sec * 1_000_000_000 + time.tv_nsec;
    format!("{} {}", nanoseconds(clock), nanoseconds(own))
}

/// Writes a line in one call, without a buffer.
fn say(line: &str) -> rustix::io::Result<()> {
    rustix::io::write(rustix::stdio::stdout(), format!("bench {line}\n").as_bytes()).map(drop)
}
