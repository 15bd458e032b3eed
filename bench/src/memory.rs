//! The memory that a move needs besides the tree, measured from outside while the move runs.
//!
//! A thread reads `/proc/meminfo` in a loop. `Shmem` and `Unevictable` together are the contents of every
//! tmpfs and ramfs, so their rise above the start is the duplicated bytes. The kernel counts in batches per
//! CPU, which leaves an error of about 1 MiB. Other programs are counted too, so the median of several runs
//! is used.

use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The maximum of each value above the start, in bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Memory {
    /// Duplicated contents of tmpfs and ramfs.
    pub(crate) contents: u64,
    /// The kernel's own objects, such as inodes and dentries.
    pub(crate) slab: u64,
    /// Anonymous memory of programs.
    pub(crate) programs: u64,
    /// All of these, and page tables and kernel stacks.
    pub(crate) all: u64,
    /// The number of samples.
    pub(crate) samples: u64,
}

/// One sample, in KiB.
#[derive(Debug, Default, Clone, Copy)]
struct Look {
    contents: u64,
    slab: u64,
    programs: u64,
    tables: u64,
}

/// A running sampler.
pub(crate) struct Sampler {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<Memory>>,
}

impl Sampler {
    /// Returns after the first sample.
    pub(crate) fn start() -> Result<Sampler> {
        // Merges the counters of each CPU, so that the first sample is right.
        let _ = std::fs::read("/proc/sys/vm/stat_refresh");
        let file = File::open("/proc/meminfo").context("cannot open /proc/meminfo")?;
        let first = Look::take(&file)?;
        let done = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut high = Memory::default();
            while !over.load(Ordering::Relaxed) {
                high.note(first, Look::take(&file)?);
                // With real-time priority, no other process of the same priority would get this CPU
                // otherwise.
                std::thread::yield_now();
            }
            Ok(high)
        });
        Ok(Sampler { done, thread })
    }

    pub(crate) fn stop(self) -> Result<Memory> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Memory {
    /// The median of each value over several runs.
    pub(crate) fn median(runs: &[Memory]) -> Option<Memory> {
        let middle = |of: fn(&Memory) -> u64| {
            let mut numbers: Vec<u64> = runs.iter().map(of).collect();
            numbers.sort_unstable();
            numbers.get(numbers.len() / 2).copied()
        };
        Some(Memory {
            contents: middle(|run| run.contents)?,
            slab: middle(|run| run.slab)?,
            programs: middle(|run| run.programs)?,
            all: middle(|run| run.all)?,
            samples: middle(|run| run.samples)?,
        })
    }

    fn note(&mut self, first: Look, now: Look) {
        let above = |now: u64, first: u64| now.saturating_sub(first) << 10;
        let all = |look: Look| look.contents + look.slab + look.programs + look.tables;
        self.contents = self.contents.max(above(now.contents, first.contents));
        self.slab = self.slab.max(above(now.slab, first.slab));
        self.programs = self.programs.max(above(now.programs, first.programs));
        self.all = self.all.max(above(all(now), all(first)));
        self.samples += 1;
    }
}

impl Look {
    fn take(file: &File) -> Result<Look> {
        let mut bytes = [0; 4096];
        let length = file.read_at(&mut bytes, 0).context("cannot read /proc/meminfo")?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        let mut look = Look::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(key), Some(value)) = (words.next(), words.next()) else { continue };
            let of = match key {
                "Shmem:" | "Unevictable:" => &mut look.contents,
                "Slab:" => &mut look.slab,
                "AnonPages:" => &mut look.programs,
                "PageTables:" | "KernelStack:" => &mut look.tables,
                _ => continue,
            };
            *of += value.parse::<u64>().with_context(|| format!("/proc/meminfo: {line}"))?;
        }
        Ok(look)
    }
}
