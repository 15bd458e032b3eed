//! `cargo xtask bench copy`: the cost of each way of copying a file, by its size, on the running kernel.

use super::arena::with_arena;
use super::guest_output::GuestOutput;
use super::machine;
use super::{document, programs, text};
use anyhow::{Context, Result};
use indicatif::ProgressBar;
use repot_harness::command;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

/// Size in KiB, files, rounds. The number of files is chosen so that every size takes about the same time.
const SIZES: [(u64, u64, u64); 8] = [
    (1, 500, 9),
    (4, 500, 9),
    (16, 300, 9),
    (64, 200, 9),
    (256, 60, 9),
    (1 << 10, 20, 9),
    (4 << 10, 6, 9),
    (64 << 10, 1, 9),
];

/// Old file system, huge= option of the new one, title.
const WAYS: [(&str, &str, &str); 4] = [
    ("ramfs", "never", "From ramfs to tmpfs"),
    ("tmpfs", "never", "From tmpfs to tmpfs"),
    ("ramfs", "within_size", "From ramfs to tmpfs with huge=within_size"),
    ("tmpfs", "within_size", "From tmpfs to tmpfs with huge=within_size"),
];

/// Measures, prints, and writes `docs/bench/copy.md` unless `quick` is set.
pub(crate) fn copying(quick: bool) -> Result<()> {
    let guest = programs::guest()?;
    let mut page = String::from("# Copying one file\n\n");
    let _ = writeln!(
        page,
        "Microseconds of CPU time per file, medians of several rounds, measured by `cargo xtask bench copy`.\n\
         {}\n",
        machine::about()?
    );
    let bar = ProgressBar::new(WAYS.len() as u64 * SIZES.len() as u64);
    for (old, huge, title) in WAYS {
        let mut times: BTreeMap<(usize, u64), Vec<u64>> = BTreeMap::new();
        let mut methods: Vec<String> = Vec::new();
        for (kib, count, rounds) in SIZES {
            let rounds = if quick { 3 } else { rounds };
            let word = format!("{}:{count}:{rounds}", kib << 10);
            let said = with_arena(old, &[("huge", huge)], |arena| {
                command::read(Command::new(&guest).arg("copy").arg(&arena.old).arg(&arena.new).arg(word))
            })?;
            for line in GuestOutput::new(said.as_bytes()).words("copy") {
                let mut words = line.splitn(3, ' ');
                let (Some(_), Some(time), Some(name)) = (words.next(), words.next(), words.next()) else {
                    continue;
                };
                let known = methods.iter().position(|method| method == name);
                let at = known.unwrap_or_else(|| {
                    methods.push(name.to_owned());
                    methods.len() - 1
                });
                times.entry((at, kib)).or_default().push(time.parse().context("a time")?);
            }
            bar.inc(1);
        }
        let head: Vec<String> =
            std::iter::once(String::new()).chain(SIZES.map(|(kib, ..)| size(kib))).collect();
        let rows: Vec<Vec<String>> = methods
            .iter()
            .enumerate()
            .map(|(at, name)| {
                let cell = |(kib, ..): (u64, u64, u64)| {
                    times.get_mut(&(at, kib)).map_or_else(String::new, |times| median(times))
                };
                std::iter::once(name.clone()).chain(SIZES.map(cell)).collect()
            })
            .collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let table = text::table(&head, &rows);
        bar.suspend(|| println!("{title}\n\n{table}"));
        let _ = writeln!(page, "## {title}\n\n{table}");
    }
    bar.finish_and_clear();
    if quick { Ok(()) } else { document::write("copy.md", &page) }
}

/// The median in microseconds.
fn median(times: &mut [u64]) -> String {
    times.sort_unstable();
    let nanoseconds = times[times.len() / 2];
    format!("{}.{}", nanoseconds / 1000, nanoseconds % 1000 / 100)
}

fn size(kib: u64) -> String {
    if kib < 1024 { format!("{kib} KiB") } else { format!("{} MiB", kib >> 10) }
}
