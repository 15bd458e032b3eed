//! The state of free memory when a contender starts.
//!
//! In a virtual machine, a page that is touched for the first time, or that the host took back, causes a page
//! fault on the host. That would slow down whichever contender happens to get the page.

use super::guest_output::GuestOutput;
use super::programs;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Memory that is left for the rest of the machine, in bytes.
const SPARE: u64 = 1 << 30;

/// The states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Free {
    /// In use a moment ago.
    Warm,
    /// Taken back by the host, so that touching it takes time.
    Cold,
    /// As it happens to be.
    AsItIs,
}

impl Free {
    /// Creates this state for a contender that needs `bytes`. It lasts as long as the result lives.
    pub(super) fn prepare(self, bytes: u64) -> Result<Option<Held>> {
        match self {
            Free::Warm => touch(bytes).map(|_| None),
            Free::Cold => Held::hold("warm", bytes + SPARE).map(Some),
            Free::AsItIs => Ok(None),
        }
    }
}

/// Touches this many bytes of free memory and releases them. Returns how long the touching took.
pub(super) fn touch(bytes: u64) -> Result<Duration> {
    let mut memory: Vec<u8> = Vec::new();
    let size = usize::try_from(bytes)?;
    ensure!(memory.try_reserve_exact(size).is_ok(), "there are no {} MiB of memory to touch", bytes >> 20);
    let start = Instant::now();
    for page in memory.spare_capacity_mut().chunks_mut(4096) {
        page[0].write(1);
    }
    let taken = start.elapsed();
    // Without this, the compiler could remove the writes.
    std::hint::black_box(&mut memory);
    Ok(taken)
}

/// Memory held by another program, which the kernel kills first if memory runs out.
pub(super) struct Held {
    holder: Child,
    /// Bytes that were free in pieces of 64 KiB and more once everything was held.
    pub(super) larger: u64,
}

impl Held {
    /// Holds memory: "warm" all that does not have to come from the host, except `rest` bytes; "alternate"
    /// every second page of all memory.
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
        let larger = GuestOutput::new(line.as_bytes()).word("larger").and_then(|number| number.parse().ok());
        let mut held = Held { holder, larger: 0 };
        held.larger = larger.context("memory could not be held")?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The program waits for the end of its input.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
