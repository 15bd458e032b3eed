//! The same for a run that unpacks a payload: an init on a whole tree, or none and the cause told.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use repot_tests::calls;
use repot_tests::faults::{Outcome, error_name};
use repot_tests::payload::faults::Sweep;

use crate::{debian, place};

/// Runs the sweep; every `step`th point of it. The whole one is written into docs/faults-payload.md.
pub(crate) fn sweep(call: Option<&str>, step: usize) -> Result<()> {
    debian::need_root("the fault sweep")?;
    let sweep = Sweep::new();
    let wanted = |name: String| call.is_none_or(|call| name == call);
    let points: Vec<_> = sweep
        .points()
        .into_iter()
        .filter(|point| wanted(calls::name(point.call)))
        .step_by(step.max(1))
        .collect();
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} left, {msg}")?;
    let bar = ProgressBar::new(points.len() as u64).with_style(style);
    let mut bad = Vec::new();
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    let mut cells: BTreeMap<(String, &str), BTreeMap<&str, usize>> = BTreeMap::new();
    for point in &points {
        let outcome = sweep.run(point);
        if matches!(outcome, Outcome::Wrong(_) | Outcome::Late) {
            bar.println(format!("{point}: {outcome:?}"));
            bad.push(point);
        }
        let word = outcome.word();
        *words.entry(word).or_default() += 1;
        *cells
            .entry((calls::name(point.call), error_name(point.error)))
            .or_default()
            .entry(word)
            .or_default() += 1;
        bar.set_message(format!("{} bad", bad.len()));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let list = |counts: &BTreeMap<&str, usize>| {
        counts.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
    };
    let sums = list(&words);
    let mut table = String::from("| call | error | outcome |\n|---|---|---|\n");
    for ((call, error), counts) in &cells {
        table += &format!("| {call} | {error} | {} |\n", list(counts));
    }
    println!("{table}\n{} points: {sums}", points.len());
    if step <= 1 && call.is_none() {
        let date = String::from_utf8(Command::new("date").args(["-u", "+%F"]).output()?.stdout)?;
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let text = format!(
            "# Every system call made to fail while a payload is unpacked\n\n`cargo xtask faults --payload` runs the static \
             init-payload as process 1 of a private namespace on a small image with an entry of every kind, and lets each call \
             that it makes fail once, with each of five errors. Each run must end within ten seconds with an init on a complete \
             tree (moved), or, since what has been freed cannot be put back, with the cause in the log and what `onerror=` asks for \
             (onerror); never with an init on half a tree.\n\n{} on kernel {kernel}: {} points: {sums}.\n\n{table}",
            date.trim(),
            points.len(),
        );
        fs::write(place::checkout().join("docs/faults-payload.md"), text)
            .context("docs/faults-payload.md")?;
    }
    ensure!(bad.is_empty(), "{} points came to what must not be", bad.len());
    Ok(())
}
