//! `docs/bench/README.md` and its drawings.

use super::plot::{self, Axes, Curve};
use super::race::{Race, Score};
use super::{document, machine, text};
use anyhow::Result;
use std::fmt::Write;

/// All results.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) races: Vec<Race>,
    /// Races with a growing number of entries.
    pub(crate) growth: Vec<Race>,
    /// Races with one file each, for the memory only.
    pub(crate) files: Vec<Race>,
}

const INTRO: &str = "\
Every contender moves the same trees, in turn, each time from a fresh root in a private mount namespace. Programs that run as \
`/init` are timed from their execution to the first instruction of the real init. All others are timed from the start of the \
copy to the end of the deletion. The classic algorithm is that of LinuxKit's init: whole files through a buffer, one after the \
other, without extended attributes, hard links and directory times. The floor creates the same files from memory that is already \
present and unlinks the originals, and does nothing else. It writes single pages, so a mover with large folios can be faster. \
\"CPU time\" is the sum over all threads and programs.

The memory that a move needs in addition to the tree is sampled from outside, by reading `/proc/meminfo` without a pause, in three \
separate runs of which the median counts (one run for a million entries). \"contents\" is how far `Shmem` plus `Unevictable` (every \
tmpfs and ramfs) rose above the start: file contents that were in memory twice. \"slab\" is the same for kernel objects, \
\"programs\" for the memory of programs, \"all\" for these and page tables. The kernel counts in batches, so values are accurate to \
1 MiB, and other programs are counted too. \"log\" is the value in repot's own log line, \"samples\" the number of readings.
";

impl Report {
    pub(crate) fn write(&self) -> Result<()> {
        let mut page = String::from("# Benchmarks\n\n");
        let _ = write!(page, "Measured by `cargo xtask bench` on {}\n\n{INTRO}", machine::about()?);
        page.push_str(
            "\nMore: [cold and fragmented memory](cold.md), [ways to copy a file](copy.md), [system calls](calls.md), \
             [the smallest machine](ram.md), [payload images](payload.md), [decoders](decoders.md), \
             [looking into images](tool.md), [memory of the tool](tool-memory.md).\n",
        );
        for race in &self.races {
            let file = drawing(race)?;
            let rounds = race.scores.first().map_or(0, |score| score.seconds.len());
            let _ = write!(
                page,
                "\n## {}\n\n{}.\n\n{}\n![]({file})\n",
                title(race),
                text::medians(rounds),
                text::race(race)
            );
            let memory = text::memory(race);
            if !memory.is_empty() {
                let _ = write!(page, "\n{memory}");
            }
            for score in &race.scores {
                if let Some(flaw) = &score.flaw {
                    let _ = write!(page, "\n{}: {flaw}.\n", score.contender.about);
                }
            }
        }
        self.growth(&mut page)?;
        self.files(&mut page)?;
        document::write("README.md", &page)
    }

    fn growth(&self, page: &mut String) -> Result<()> {
        if self.growth.is_empty() {
            return Ok(());
        }
        let each = |race: &Race, score: &Score| score.median() * 1e6 / text::number(race.entries);
        let curves =
            curves(&self.growth, |race, score| Some((text::number(race.entries), each(race, score))));
        let axes = Axes { x: "entries", y: "microseconds per entry" };
        plot::curves(&document::path("growth.svg")?, "Time per entry, by size of the tree", axes, &curves)?;
        page.push_str(
            "\n## Growth with the number of entries\n\nFiles of 1 KiB, a hundred per directory. \"slab\" grows because a tmpfs \
             inode is larger than a ramfs inode, and because the kernel frees the old inodes late: it belongs to the tree, not to \
             the mover.\n\n",
        );
        let mut rows = Vec::new();
        for race in &self.growth {
            for score in &race.scores {
                let memory = score.memory;
                let taken = |of: fn(super::memory::Memory) -> u64| {
                    memory.map_or_else(String::new, |memory| text::mib(of(memory)))
                };
                rows.push(vec![
                    score.contender.about.clone(),
                    race.entries.to_string(),
                    score.seconds.len().to_string(),
                    text::seconds(score.median()),
                    format!("{:.2} µs", each(race, score)),
                    taken(|memory| memory.contents),
                    taken(|memory| memory.slab),
                    taken(|memory| memory.programs),
                ]);
            }
        }
        rows.sort_by(|one, other| one[0].cmp(&other[0]));
        page.push_str(&text::table(
            &["", "entries", "rounds", "median", "per entry", "contents", "slab", "programs"],
            &rows,
        ));
        page.push_str("\n![](growth.svg)\n");
        Ok(())
    }

    fn files(&self, page: &mut String) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        let mib = |bytes: u64| text::number(bytes) / 1_048_576.0;
        let curves = curves(&self.files, |race, score| Some((mib(race.bytes), mib(score.memory?.contents))));
        let axes = Axes { x: "MiB of the largest file", y: "MiB in addition to the tree" };
        plot::curves(
            &document::path("memory.svg")?,
            "Memory at the peak, by the largest file",
            axes,
            &curves,
        )?;
        page.push_str("\n## Memory at the peak, by the largest file\n\nA tree with one file. The cells show file contents that were in memory twice.\n\n");
        let names: Vec<&str> =
            self.files[0].scores.iter().map(|score| score.contender.about.as_str()).collect();
        let sizes: Vec<String> = self.files.iter().map(|race| text::mib(race.bytes)).collect();
        let head: Vec<&str> = std::iter::once("").chain(sizes.iter().map(String::as_str)).collect();
        let rows: Vec<Vec<String>> = names
            .iter()
            .enumerate()
            .map(|(at, name)| {
                let cell = |race: &Race| {
                    race.scores[at].memory.map_or_else(String::new, |memory| text::mib(memory.contents))
                };
                std::iter::once((*name).to_owned()).chain(self.files.iter().map(cell)).collect()
            })
            .collect();
        page.push_str(&text::table(&head, &rows));
        page.push_str("\n![](memory.svg)\n");
        Ok(())
    }
}

/// Draws the medians of a race and returns the file name.
pub(crate) fn drawing(race: &Race) -> Result<String> {
    let file = format!("time-{}-{}.svg", race.tree.name, race.root);
    let bars: Vec<_> = race
        .scores
        .iter()
        .map(|score| (score.contender.about.clone(), score.median(), text::seconds(score.median())))
        .collect();
    plot::bars(&document::path(&file)?, &title(race), &bars)?;
    Ok(file)
}

/// The title of a race.
pub(crate) fn title(race: &Race) -> String {
    format!("{}, from {}: {} entries, {}", race.tree.about, race.root, race.entries, text::mib(race.bytes))
}

fn curves(races: &[Race], point: impl Fn(&Race, &Score) -> Option<(f64, f64)>) -> Vec<Curve> {
    let Some(first) = races.first() else { return Vec::new() };
    let named = |at: usize, score: &Score| Curve {
        name: score.contender.about.clone(),
        points: races.iter().filter_map(|race| point(race, &race.scores[at])).collect(),
    };
    first.scores.iter().enumerate().map(|(at, score)| named(at, score)).collect()
}
