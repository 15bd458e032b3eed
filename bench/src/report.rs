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
Every contender moves the same trees, in turn, from a fresh root in a mount namespace of its own. What is run as `/init` is \
timed from its execution to the first instruction of the real init; everything else from the start of the copy to the end of \
the deletion. The floor makes the same files from memory that is at hand and unlinks the originals, and does nothing else: no \
mover can be faster. \"processors\" is the time that all its threads and programs together spent on a processor.

What a move takes besides the tree is watched from outside, in three runs of their own of which the median counts (one with a million \
entries), by reading `/proc/meminfo` without a pause: \
\"contents\" is how far `Shmem` and `Unevictable` (every tmpfs and ramfs) together rose above the start, \"slab\" the same for the \
kernel's objects, \"programs\" for the memory of programs, \"all\" for these and page tables. The kernel counts in batches, so an error of 1 MiB is in \
them, and other programs are counted too. \"it says\" is what repot's own line in the log says.
";

impl Report {
    pub(crate) fn write(&self) -> Result<()> {
        let mut page = String::from("# Measurements\n\n");
        let _ = write!(page, "By `cargo xtask bench`, on {}\n\n{INTRO}", machine::about()?);
        page.push_str("\nMore: [memory that is cold, or in pieces](cold.md), [ways of copying a file](copy.md), [system calls](calls.md), \
             [the smallest machine](ram.md), [payloads](payload.md), [decoders](decoders.md).\n");
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
        let axes = Axes { x: "entries", y: "microseconds an entry" };
        plot::curves(
            &document::path("growth.svg")?,
            "Time for an entry, by the size of the tree",
            axes,
            &curves,
        )?;
        page.push_str(
            "\n## Growth with the number of entries\n\nFiles of 1 KiB, a hundred in a directory. \"slab\" grows because an inode of a tmpfs is larger \
             than one of a ramfs, and because the kernel frees the old ones late: it is part of the tree, not of the mover.\n\n",
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
            &["", "entries", "rounds", "median", "an entry", "contents", "slab", "programs"],
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
        let axes = Axes { x: "MiB of the largest file", y: "MiB besides the tree" };
        plot::curves(
            &document::path("memory.svg")?,
            "Memory at the peak, by the largest file",
            axes,
            &curves,
        )?;
        page.push_str("\n## Memory at the peak, by the largest file\n\nA tree of one file; contents that were there twice.\n\n");
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
