//! The races: all contenders move the same trees, in turn.

use crate::Choice;
use crate::contenders::Contender;
use crate::report::{self, Report};
use crate::run::Terms;
use crate::trees::{self, Tree};
use crate::{race, text};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// The contenders of the growth curve. The others would only take long.
const GROWING: [&str; 5] = ["repot-1", "repot-all", "classic", "tar", "floor-all"];

/// Runs that measure the memory. A single one for trees with long runs.
const LOOKS: usize = 3;

/// Sizes of the largest file, in MiB.
const FILES: [u64; 6] = [1, 4, 16, 64, 200, 512];

pub(crate) fn races(choice: &Choice, terms: Terms<'_>) -> Result<()> {
    let (trees, contenders) = (choice.trees()?, choice.contenders()?);
    let most = if choice.quick { 3 } else { usize::MAX };
    let rounds = |tree: &Tree| most.min(if tree.is_heavy() { choice.heavy_rounds } else { choice.rounds });
    let looks = |tree: &Tree| if tree.is_heavy() { 1 } else { LOOKS };
    // Curves, and pages that replace earlier ones, need all results.
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
        // A page needs every contender on every tree, a drawing only one race.
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
