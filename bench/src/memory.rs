//! What a move takes of the machine's memory besides the tree, seen from outside while it goes on.
//!
//! `/proc/meminfo` is read over and over on a thread of its own. `Shmem` and `Unevictable` together are the contents of
//! every tmpfs and ramfs, so how far they rise above the start is what was there twice. The kernel counts in batches for
//! each processor, which leaves an error of about 1 MiB. Other programs that run meanwhile are counted too, so it is done in several
//! runs, and the median counts.

use anyhow::{Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The highest each was above the start, in bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Memory {
    /// Contents of tmpfs and ramfs.
    pub(crate) contents: u64,
    /// The kernel's own objects: inodes, names.
    pub(crate) slab: u64,
    /// What programs have for themselves.
    pub(crate) programs: u64,
    /// All of these and the page tables together.
    pub(crate) all: u64,
    /// How often it was looked.
    pub(crate) samples: u64,
}

/// One look, in KiB.
#[derive(Debug, Default, Clone, Copy)]
struct Look {
    contents: u64,
    slab: u64,
    programs: u64,
    tables: u64,
}

/// A thread that looks.
pub(crate) struct Sampler {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<Memory>>,
}

impl Sampler {
    /// Returns when it has looked for the first time.
    pub(crate) fn start() -> Result<Sampler> {
        // Counts that processors keep for themselves are brought in, so that the start is right.
        let _ = std::fs::read("/proc/sys/vm/stat_refresh");
        let file = File::open("/proc/meminfo").context("cannot open /proc/meminfo")?;
        let first = Look::take(&file)?;
        let done = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut high = Memory::default();
            while !over.load(Ordering::Relaxed) {
                high.note(first, Look::take(&file)?);
                // With real-time priority nobody of the same priority would get this processor otherwise.
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
    /// Of several runs, the median of each.
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
