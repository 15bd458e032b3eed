//! `cargo xtask packing ROOT`: `repot pack` against `find | cpio | zstd -T0` at the same level, turn by turn.

use anyhow::{Context, Result, ensure};
use repot_harness::command::exists;
use repot_harness::{build, debian, place};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Measure `repot pack` against find, cpio and zstd, turn by turn.
#[derive(Debug, clap::Parser)]
#[command(
    name = "cargo xtask packing",
    bin_name = "cargo xtask packing",
    after_help = "Example: cargo xtask packing debian --rounds 5"
)]
pub(crate) struct Packing {
    /// The directory to pack
    root: PathBuf,
    /// Levels of zstd
    #[arg(long, default_values_t = [3, 9], value_delimiter = ',')]
    levels: Vec<u32>,
    /// Number of rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// One run, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

/// Measures and prints a table.
pub(crate) fn packing(Packing { root, levels, rounds }: &Packing) -> Result<()> {
    ensure!(root.is_dir(), "{} is not a directory", root.display());
    debian::need(&[("cpio", "cpio"), ("zstd", "zstd")])?;
    ensure!(exists("bash"), "missing program: bash");
    let tool = build::tool(&[build::Arch::X86_64])?;
    let folder = place::fresh("packing")?;
    let root = root.canonicalize().with_context(|| format!("cannot find {}", root.display()))?;
    println!("level  way                        wall      CPU        image");
    for level in levels {
        let ours = format!("{} pack {} -o ours --level {level}", tool.display(), root.display());
        let theirs = format!(
            "(cd {} && find . -print0 | cpio -0 -o -H newc --quiet) | zstd -q -T0 -{level} -o theirs -f",
            root.display()
        );
        let ways = [("repot pack", ours, "ours"), ("find | cpio | zstd -T0", theirs, "theirs")];
        let mut costs = [Vec::new(), Vec::new()];
        for round in 0..=*rounds {
            for turn in 0..2 {
                // The order alternates. The first round does not count: it brings the root into memory.
                let at = if round % 2 == 0 { turn } else { 1 - turn };
                let cost = time(&folder, &ways[at].1)?;
                if round > 0 {
                    costs[at].push(cost);
                }
            }
        }
        for ((name, _, image), costs) in ways.iter().zip(&costs) {
            let bytes = folder.join(image).metadata()?.len();
            let (wall, cpu) = (median(costs, |cost| cost.wall), median(costs, |cost| cost.cpu));
            println!("{level:5}  {name:22}  {wall:7.2} s  {cpu:6.2} s  {bytes:11} B");
        }
        let ratio = |of: fn(&Cost) -> f64| median(&costs[1], of) / median(&costs[0], of);
        let (wall, cpu) = (ratio(|cost| cost.wall), ratio(|cost| cost.cpu));
        println!("{level:5}  times as fast           {wall:7.2}    {cpu:6.2}");
    }
    Ok(())
}

/// Runs a line of bash.
pub(crate) fn time(folder: &Path, line: &str) -> Result<Cost> {
    let script = format!("set -o pipefail; TIMEFORMAT='%R %U %S'; time {{ {line} > /dev/null; }}");
    let mut bash = Command::new("bash");
    let output = bash.current_dir(folder).args(["-c", &script]).output().context("cannot run bash")?;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{line}: {printed}");
    let last = printed.lines().next_back().unwrap_or_default();
    let numbers: Vec<f64> = last.split(' ').filter_map(|number| number.parse().ok()).collect();
    let [wall, user, system] = numbers[..] else { anyhow::bail!("unexpected output of bash: {printed:?}") };
    Ok(Cost { wall, cpu: user + system })
}

fn median(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> f64 {
    let mut values: Vec<f64> = costs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
