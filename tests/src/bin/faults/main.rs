//! `cargo xtask faults`: each system call of a run fails once with each of five errors, and a table shows the
//! results.

mod swap;
mod unpacking;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use repot_harness::{debian, place};
use repot_tests::calls;
use repot_tests::faults::{self, Outcome, Point};
use repot_tests::trees::Fs;

/// Let every system call of a run fail in turn, and write docs/faults.md.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask faults",
    bin_name = "cargo xtask faults",
    after_help = "Examples:\n  cargo xtask faults\n  cargo xtask faults --call utimensat\n  cargo xtask faults --every 50"
)]
struct Choice {
    /// Only this call
    #[arg(long)]
    call: Option<String>,
    /// Only every Nth failure
    #[arg(long, value_name = "N", default_value_t = 1)]
    every: usize,
    /// Runs at a time
    #[arg(long, short, default_value_t = 2)]
    jobs: usize,
    /// Let the calls of a run fail that unpacks a payload, and write docs/faults-payload.md
    #[arg(long)]
    payload: bool,
    /// Let the calls fail that make swap in compressed memory, and write docs/faults-zram.md
    #[arg(long, conflicts_with = "payload")]
    zram: bool,
}

fn main() -> Result<()> {
    let choice = Choice::parse();
    debian::need_root("the fault sweep")?;
    match &choice {
        Choice { payload: true, .. } => unpacking::sweep(&choice),
        Choice { zram: true, .. } => swap::sweep(&choice),
        Choice { .. } => sweep(&choice),
    }
}

fn sweep(choice: &Choice) -> Result<()> {
    let points = [Fs::Ramfs, Fs::Tmpfs].into_iter().flat_map(faults::points);
    let results = run(choice, points, &faults::run, Outcome::is_bad)?;
    finish(choice, "docs/faults.md", TEXT, &results, &summary(&results), Outcome::is_bad)
}

impl Choice {
    fn is_whole(&self) -> bool {
        self.every <= 1 && self.call.is_none()
    }
}

/// Runs the chosen ones, several at a time, and prints each bad result at once.
fn run(
    choice: &Choice,
    points: impl Iterator<Item = Point>,
    one: &(dyn Fn(&Point) -> Outcome + Sync),
    is_bad: fn(&Outcome) -> bool,
) -> Result<Vec<(Point, Outcome)>> {
    let points: Vec<_> = points
        .filter(|point| choice.call.as_ref().is_none_or(|call| calls::name(point.call) == *call))
        .step_by(choice.every.max(1))
        .collect();
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} left")?;
    let bar = ProgressBar::new(points.len() as u64).with_style(style);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..choice.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(point) = points.get(number) else { break };
                    let outcome = one(point);
                    if is_bad(&outcome) {
                        bar.suspend(|| println!("{point}: {outcome:?}"));
                    }
                    bar.inc(1);
                    if let Ok(mut results) = results.lock() {
                        results.insert(number, (*point, outcome));
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    Ok(results.into_inner().unwrap_or_default().into_values().collect())
}

/// The results in one sentence.
fn summary(results: &[(Point, Outcome)]) -> String {
    let count = |wanted: fn(&Outcome) -> bool| results.iter().filter(|(_, outcome)| wanted(outcome)).count();
    format!(
        "{} faults: {} runs moved the root nevertheless, {} rolled back and bound it, {} left it alone, \
         {} did not make the call this time, {} had a forbidden outcome",
        results.len(),
        count(|outcome| *outcome == Outcome::Moved),
        count(|outcome| *outcome == Outcome::Bound),
        count(|outcome| *outcome == Outcome::Stayed),
        count(|outcome| *outcome == Outcome::NotReached),
        count(Outcome::is_bad)
    )
}

/// Prints the table. That of a whole sweep is also written to `document`.
fn finish(
    choice: &Choice,
    document: &str,
    text: &str,
    results: &[(Point, Outcome)],
    sums: &str,
    is_bad: fn(&Outcome) -> bool,
) -> Result<()> {
    let table = faults::table(results);
    println!("{table}\n{sums}");
    let bad = results.iter().filter(|(_, outcome)| is_bad(outcome)).count();
    ensure!(bad == 0, "{bad} runs had a forbidden outcome");
    if !choice.is_whole() {
        return Ok(());
    }
    let date = String::from_utf8(Command::new("date").args(["-u", "+%F"]).output()?.stdout)?;
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let text = format!("{text}\n\n{} on kernel {kernel}: {sums}.\n\n{table}", date.trim());
    fs::write(place::checkout().join(document), text).with_context(|| document.to_owned())
}

const TEXT: &str = "# Fault injection: every system call\n\n`cargo xtask faults` runs the static init as PID 1 of a private \
     namespace, on a ramfs and on a tmpfs that hold an entry of every kind, stacked mounts and two inits. It makes each system \
     call of the run fail once, with each of five errors. The ramfs is left by `chroot`, as on kernels before 7.0 (its \
     `pivot_root` is always refused); the tmpfs is left by `pivot_root`. Each run must end within ten seconds, with an init on a \
     complete tree and every mount in place. The table counts the outcomes.";
