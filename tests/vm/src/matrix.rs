//! Real systems: boot flows, systemd, container engines, each without repot and with it in every mode.
//!
//! Each file of `tests/vm/matrix` is a system: a root, and the boots of it. Its init starts a script from a
//! read-only disk, which reports a row for each thing that it tried. `cargo xtask matrix` boots all of them
//! and writes docs/matrix.md; the boots called system/NAME/… are a sample.

mod outcome;
mod page;
mod root;
mod system;
mod turn;

use crate::Boot;
use anyhow::{Context, Result, bail, ensure};
use outcome::Outcome;
pub(crate) use root::debian_root;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use system::{System, Turn};

/// What to boot, and what to do with the results.
#[derive(Debug)]
pub struct Choice<'a> {
    /// Part of a boot's name: SYSTEM/MODE-KERNEL.
    pub filter: &'a str,
    /// Print the boots that the filter selects, and boot nothing.
    pub list: bool,
    /// Print the results as JSON.
    pub json: bool,
    /// Boot again what was measured with the same programs.
    pub again: bool,
    /// Write the pages from what was measured.
    pub write: bool,
    /// Virtual machines at a time.
    pub jobs: usize,
}

/// A boot of the command.
type Job = (Arc<System>, Turn);

/// Boots what is chosen. Without a filter, writes docs/matrix.md and the table of the README.
///
/// # Errors
/// If something cannot be built or booted, or a result is not the expected one.
pub fn matrix(choice: &Choice) -> Result<()> {
    let systems = system::all()?;
    let jobs: Vec<Job> = systems
        .iter()
        .flat_map(|system| system.turns().map(|turn| (Arc::clone(system), turn)))
        .filter(|(system, turn)| turn.name(system).contains(choice.filter))
        .collect();
    ensure!(!jobs.is_empty(), "no boot is called {:?}; see --list", choice.filter);
    if choice.list {
        jobs.iter().for_each(|(system, turn)| println!("{}", turn.name(system)));
        return Ok(());
    }
    let (outcomes, failures) = run(&jobs, choice)?;
    if choice.json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
    }
    if choice.write || choice.filter.is_empty() {
        page::write(&systems)?;
    }
    ensure!(failures.is_empty(), "not as expected:\n{}", failures.join("\n"));
    Ok(())
}

/// Runs the boots, several at a time. Returns what they reported, and what was not as expected.
fn run(jobs: &[Job], choice: &Choice) -> Result<(Vec<Outcome>, Vec<String>)> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new((Vec::new(), Vec::new())));
    let worker = || {
        while let Some((system, turn)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = turn.name(system);
            let outcome = one(system, turn, choice);
            let Ok(mut done) = done.lock() else { return };
            match outcome {
                Ok(outcome) => {
                    done.1.extend(
                        system.unexpected(turn, &outcome).iter().map(|line| format!("{name}: {line}")),
                    );
                    done.0.push(outcome);
                }
                Err(error) => done.1.push(format!("{name}: {error:#}")),
            }
        }
    };
    std::thread::scope(|scope| {
        (0..choice.jobs.max(1)).for_each(|_| drop(scope.spawn(worker)));
    });
    done.into_inner().ok().context("a boot panicked")
}

fn one(system: &Arc<System>, turn: &Turn, choice: &Choice) -> Result<Outcome> {
    let name = turn.name(system);
    if !choice.again
        && let Some(outcome) = turn::known(system, turn)?
    {
        eprintln!("{name}: {} (measured before)", outcome.summary());
        return Ok(outcome);
    }
    eprintln!("{name}: building and booting ...");
    let outcome = turn::boot(system, turn)?;
    eprintln!("{name}: {}", outcome.summary());
    for (row, message) in outcome.rows.iter().filter_map(|row| Some((&row.name, row.failed.as_ref()?))) {
        eprintln!("{name}:   {row}: {message}");
    }
    Ok(outcome)
}

/// The boots of the sample are tests; the others run where all boots are asked for.
///
/// # Errors
/// If the file of a system cannot be read.
pub(crate) fn boots() -> Result<Vec<Boot>> {
    let mut boots = Vec::new();
    for system in system::all()? {
        for turn in system.turns() {
            let system = Arc::clone(&system);
            boots.push(Boot {
                name: format!("system/{}", turn.name(&system)),
                long: !turn.sample,
                run: Box::new(move || {
                    let unexpected = system.unexpected(&turn, &turn::boot(&system, &turn)?);
                    if unexpected.is_empty() { Ok(()) } else { bail!("{}", unexpected.join("\n")) }
                }),
            });
        }
    }
    Ok(boots)
}
