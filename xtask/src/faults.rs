//! Every system call of a run made to fail, one at a time, with each error in turn; and the table of what came of it.

pub(crate) mod payload;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use repot_tests::calls;
use repot_tests::faults::{self, Outcome};
use repot_tests::trees::Fs;

use crate::{debian, place};

/// Runs the sweep; every `step`th point of it. The whole one is written into docs/faults.md.
pub(crate) fn sweep(call: Option<&str>, step: usize) -> Result<()> {
    debian::need_root("the fault sweep")?;
    let points: Vec<_> = [Fs::Ramfs, Fs::Tmpfs]
        .into_iter()
        .flat_map(faults::points)
        .filter(|point| call.is_none_or(|call| calls::name(point.call) == call))
        .step_by(step.max(1))
        .collect();
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} left, {msg}")?;
    let bar = ProgressBar::new(points.len() as u64).with_style(style);
    let mut results = Vec::with_capacity(points.len());
    let mut bad = Vec::new();
    for point in points {
        let outcome = faults::run(&point);
        if outcome.is_bad() {
            bar.println(format!("{point:?}: {outcome:?}"));
            bad.push(format!("{point:?}: {outcome:?}"));
        }
        bar.set_message(format!("{} bad", bad.len()));
        bar.inc(1);
        results.push((point, outcome));
    }
    bar.finish_and_clear();
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    for word in results.iter().map(|(_, outcome): &(_, Outcome)| outcome.word()) {
        *words.entry(word).or_default() += 1;
    }
    let sums: Vec<_> = words.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let table = faults::table(&results);
    println!("{table}\n{} points: {}", results.len(), sums.join(", "));
    if step <= 1 && call.is_none() {
        let date = String::from_utf8(Command::new("date").args(["-u", "+%F"]).output()?.stdout)?;
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let text = format!(
            "# Every system call made to fail\n\n`cargo xtask faults` runs the static init as process 1 of a private namespace on a \
             ramfs and on a tmpfs with an entry of every kind, mounts upon mounts and two inits, and lets each call that it makes \
             fail once, with each of five errors. Each run must end within ten seconds with an init executed on a complete tree, \
             or as `onerror=` says.\n\n{} on kernel {kernel}: {} points: {}.\n\n{table}",
            date.trim(),
            results.len(),
            sums.join(", ")
        );
        fs::write(place::checkout().join("docs/faults.md"), text).context("docs/faults.md")?;
    }
    ensure!(bad.is_empty(), "{} points came to what must not be", bad.len());
    Ok(())
}
