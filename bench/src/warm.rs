//! What free memory is like when a contender starts.
//!
//! In a virtual machine a page that is touched for the first time, or that was free for so long that it was given back, is a fault of
//! the host's, which would fall on whoever happens to get it.

use super::programs;
use super::told::Told;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the rest of the machine may use meanwhile.
const SPARE: u64 = 1 << 30;

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Free {
    /// Was in use a moment ago.
    Warm,
    /// Has been taken back by the host: it takes time to touch.
    Cold,
    /// Whatever is there.
    AsItIs,
}

impl Free {
    /// Makes it so for a contender that needs this many bytes, as long as the result is kept.
    pub(super) fn prepare(self, bytes: u64) -> Result<Option<Held>> {
        match self {
            Free::Warm => touch(bytes).map(|_| None),
            Free::Cold => Held::hold("warm", bytes + SPARE).map(Some),
            Free::AsItIs => Ok(None),
        }
    }
}

/// Touches so many bytes of free memory, and gives them back; returns how long that took.
pub(super) fn touch(bytes: u64) -> Result<Duration> {
    let mut memory: Vec<u8> = Vec::new();
    let size = usize::try_from(bytes)?;
    ensure!(memory.try_reserve_exact(size).is_ok(), "there are no {} MiB of memory to touch", bytes >> 20);
    let start = Instant::now();
    for page in memory.spare_capacity_mut().chunks_mut(4096) {
        page[0].write(1);
    }
    let taken = start.elapsed();
    // Or the writes would be seen to lead nowhere, and left out.
    std::hint::black_box(&mut memory);
    Ok(taken)
}

/// Memory in the hands of another program, which is the first to end when there is none left.
pub(super) struct Held {
    holder: Child,
    /// Bytes that were free in pieces of 64 KiB and more when it had what it wanted.
    pub(super) larger: u64,
}

impl Held {
    /// "warm" is what need not come from the host, as long as so many bytes are left; "alternate" every other page of all there is.
    pub(super) fn hold(what: &str, rest: u64) -> Result<Held> {
        let mut command = Command::new(programs::guest()?);
        let mut holder = command
            .args(["hold", what, &rest.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run the guest")?;
        let mut line = String::new();
        let mut output = BufReader::new(holder.stdout.take().context("no pipe")?);
        output.read_line(&mut line).context("cannot read from the guest")?;
        let larger = Told::new(line.as_bytes()).word("larger").and_then(|number| number.parse().ok());
        let mut held = Held { holder, larger: 0 };
        held.larger = larger.context("memory could not be held")?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It waits for the end of its input.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
