//! `cargo xtask bench`: everyone on the same trees, in turn, and what it takes.
//!
//! Each run has a fresh root in a mount namespace of its own; the machine's own mounts are not touched.

mod arena;
mod calls;
mod cold;
mod contenders;
mod copying;
mod decoders;
mod document;
mod machine;
mod memory;
mod payload;
mod plot;
mod programs;
mod race;
mod ram;
mod report;
mod run;
mod sys;
mod text;
mod told;
mod trees;
mod warm;

use crate::{debian, dist};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use contenders::{Contender, Peer};
use indicatif::{ProgressBar, ProgressStyle};
use report::Report;
use run::Terms;
use trees::Tree;
use warm::Free;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    choice: Choice,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Ways of copying one file, by its size
    Copy,
    /// The smallest virtual machine in which each boots the whole tree
    Ram,
    /// System calls for each entry of a tree
    Calls,
    /// A root that comes compressed: memory and time
    Payload,
    /// What could decompress it, and what its frames and its window cost
    Decoders,
    /// Memory that is warm, cold, or free in single pages only, with large folios and without
    Cold,
}

#[derive(Debug, Args)]
struct Choice {
    /// Rounds of each race; with 7 a whole run of all races takes about 45 minutes on two processors
    #[arg(long, default_value_t = 7, global = true)]
    rounds: usize,
    /// Rounds with a million entries, of which each takes four minutes
    #[arg(long, default_value_t = 1, global = true)]
    heavy_rounds: usize,
    /// Trees to move; all when none is named
    #[arg(long, value_name = "NAME", global = true)]
    tree: Vec<String>,
    /// Contenders, or of `payload` what is measured: `ram`, `time`; all when none is named
    #[arg(long, value_name = "NAME", global = true)]
    only: Vec<String>,
    /// Another program, run as /init
    #[arg(long, value_name = "NAME=PATH", global = true)]
    peer: Vec<Peer>,
    /// The old root's file system
    #[arg(long, value_name = "TYPE", default_value = "ramfs", global = true)]
    root: Vec<String>,
    /// Do not touch memory before each run: the host's faults then fall on whoever meets them
    #[arg(long, global = true)]
    cold: bool,
    /// Few rounds, and nothing is written to docs/
    #[arg(long, global = true)]
    quick: bool,
}

/// Runs what was asked for.
pub(crate) fn bench(bench: &Bench) -> Result<()> {
    debian::need_root("the benchmark")?;
    let Bench { part, choice } = bench;
    let init = dist::init(dist::Arch::X86_64)?;
    let free = if choice.cold { Free::AsItIs } else { Free::Warm };
    let terms = Terms { root: "ramfs", init: &init, sample: false, free, tracer: &[] };
    match part {
        None => races(choice, terms),
        Some(Part::Ram) => ram::ram(&choice.tree, &choice.only, &choice.peer, choice.quick),
        Some(Part::Copy) => copying::copying(choice.quick),
        Some(Part::Decoders) => decoders::decoders(&choice.tree, choice.rounds, choice.quick),
        Some(Part::Cold) => cold::cold(&choice.tree, choice.rounds, terms, choice.quick),
        Some(Part::Payload) => payload::payload(&choice.tree, &choice.only, choice.rounds, choice.quick),
        Some(Part::Calls) => {
            let tree = choice.trees()?.into_iter().next().context("no tree")?;
            let ours = |one: &Contender| one.name.starts_with("repot-") && one.moves();
            let contenders: Vec<Contender> = choice.contenders()?.into_iter().filter(ours).collect();
            calls::calls(&tree, &contenders, terms, choice.quick)
        }
    }
}

impl Choice {
    fn trees(&self) -> Result<Vec<Tree>> {
        if self.tree.is_empty() {
            return Ok(trees::all());
        }
        // Those of the growth curve, too, when they are named.
        let trees: Vec<Tree> = trees::all().into_iter().chain(trees::growing(false)).collect();
        if let Some(name) = self.tree.iter().find(|name| trees.iter().all(|tree| tree.name != **name)) {
            let known: Vec<&str> = trees.iter().map(|tree| tree.name.as_str()).collect();
            bail!("no tree {name}; there are {}", known.join(", "));
        }
        Ok(trees.into_iter().filter(|tree| self.tree.contains(&tree.name)).collect())
    }

    fn is_peer(&self, contender: &Contender) -> bool {
        self.peer.iter().any(|peer| peer.name == contender.name)
    }

    fn contenders(&self) -> Result<Vec<Contender>> {
        contenders::chosen(contenders::all(&self.peer)?, &self.only)
    }
}

/// The growth curve's contenders: the others would only take long.
const GROWING: [&str; 5] = ["repot-1", "repot-all", "classic", "tar", "floor-all"];

/// Runs in which the memory is watched; one where a run takes half a minute.
const LOOKS: usize = 3;

/// MiB of the largest file.
const FILES: [u64; 6] = [1, 4, 16, 64, 200, 512];

fn races(choice: &Choice, terms: Terms<'_>) -> Result<()> {
    let (trees, contenders) = (choice.trees()?, choice.contenders()?);
    let most = if choice.quick { 3 } else { usize::MAX };
    let rounds = |tree: &Tree| most.min(if tree.is_heavy() { choice.heavy_rounds } else { choice.rounds });
    let looks = |tree: &Tree| if tree.is_heavy() { 1 } else { LOOKS };
    // Curves, and pages that replace earlier ones, are made of everything or not at all.
    let whole = choice.tree.is_empty() && choice.only.is_empty();
    let few = |names: &[&str]| -> Vec<Contender> {
        let known = contenders.iter().filter(|one| names.contains(&one.name.as_str()) || choice.is_peer(one));
        known.cloned().collect()
    };
    let growing: Vec<(Tree, Vec<Contender>)> = match whole {
        true => trees::growing(choice.quick).into_iter().map(|tree| (tree, few(&GROWING))).collect(),
        false => Vec::new(),
    };
    let movers: Vec<Contender> =
        contenders.iter().filter(|one| one.moves() && !one.name.starts_with("floor")).cloned().collect();
    let sizes = if whole { &FILES[..] } else { &[] };
    let files: Vec<Tree> = sizes.iter().map(|mib| trees::one_file(*mib)).collect();
    for tree in &trees {
        tree.prepare()?;
    }
    let runs = |tree| race::runs(&contenders, rounds(tree), looks(tree));
    let total = choice.root.len() * trees.iter().map(runs).sum::<usize>()
        + growing.iter().map(|(tree, few)| race::runs(few, rounds(tree), looks(tree))).sum::<usize>()
        + files.len() * race::runs(&movers, 0, LOOKS);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {eta} left, {msg}")?;
    let bar = ProgressBar::new(total as u64).with_style(style);
    let mut report = Report::default();
    for root in &choice.root {
        for tree in &trees {
            report.races.push(race::race(
                tree,
                &contenders,
                rounds(tree),
                looks(tree),
                Terms { root, ..terms },
                &bar,
            )?);
            bar.suspend(|| show(report.races.last()));
        }
    }
    for (tree, few) in &growing {
        report.growth.push(race::race(tree, few, rounds(tree), looks(tree), terms, &bar)?);
        bar.suspend(|| show(report.growth.last()));
    }
    for tree in &files {
        report.files.push(race::race(tree, &movers, 0, LOOKS, terms, &bar)?);
        bar.suspend(|| show(report.files.last()));
    }
    bar.finish_and_clear();
    match (choice.quick, whole) {
        (true, _) => Ok(()),
        (false, true) => report.write(),
        // A page is about everyone on every tree; a drawing about one race.
        (false, false) if choice.only.is_empty() => {
            report.races.iter().try_for_each(|race| report::drawing(race).map(drop))
        }
        (false, false) => Ok(()),
    }
}

fn show(race: Option<&race::Race>) {
    let Some(race) = race else { return };
    println!("{}\n\n{}\n{}", report::title(race), text::race(race), text::memory(race));
    for score in &race.scores {
        if let Some(flaw) = &score.flaw {
            println!("{}: {flaw}\n", score.contender.name);
        }
    }
}
