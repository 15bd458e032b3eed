//! The boots: repot in virtual machines, on stock kernels.
//!
//! Each file of `tests/vm/boots` is a scenario: one image, booted on each kernel, type of initial root and
//! mode that the file names. `tool_images` boots what the released tool packs, once per kind of source. In
//! the guest, the [probe](repot_probe) is the real init. It reports what it finds, and the host compares that
//! with what the scenario expects. [`sweep`] repeats one boot with less and less memory.

mod arches;
mod busybox;
mod case;
pub mod containers;
mod expect;
mod firmware;
pub mod formats;
mod image;
mod in_use;
pub mod initrds;
mod layouts;
pub mod matrix;
pub mod packaging;
mod payload_image;
mod programs;
mod run_images;
mod scenario;
mod secret;
mod segments;
mod served;
pub mod sweep;
mod tool_images;
pub mod unpacked;
mod verdict;

use anyhow::{Context, Result, bail};
use repot_harness::qemu::Run;
use repot_snapshot::{Atime, Holes, Rules, Snapshot, difference};
use std::path::Path;
use std::time::Duration;

/// For a guest that hangs. On an idle machine the slowest boot takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(300);

/// Differences between two trees that are shown; the rest are counted.
const SHOWN: usize = 12;

/// One boot, ready to run.
pub struct Boot {
    /// SCENARIO/KERNEL-ROOTFSTYPE-MODE, image/NAME, layouts/NAME, run/NAME, served/NAME, uki/NAME,
    /// unpacked/NAME, container/NAME, in-use/ROW-KERNEL-ROOTFSTYPE, formats/KERNEL-NAME,
    /// system/NAME/MODE-KERNEL, or arch/ARCH/SCENARIO/KERNEL-ROOTFSTYPE-MODE.
    pub name: String,
    /// It runs only where all boots are asked for.
    pub long: bool,
    run: Box<dyn FnOnce() -> Result<()> + Send>,
}

impl std::fmt::Debug for Boot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Boot").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Boot {
    /// Builds what is missing, boots, and compares.
    ///
    /// # Errors
    /// If something is not as expected. The message has a line for each difference.
    pub fn run(self) -> Result<()> {
        (self.run)()
    }
}

/// All boots, in the order in which they run.
///
/// # Errors
/// If a scenario cannot be read.
pub fn all() -> Result<Vec<Boot>> {
    let mut boots = tool_images::boots();
    boots.extend(layouts::boots());
    boots.extend(formats::boots());
    boots.extend(run_images::boots());
    boots.extend(in_use::boots()?);
    boots.extend(containers::boots());
    boots.extend(served::boots());
    boots.extend(firmware::boots());
    boots.extend(unpacked::boots());
    boots.extend(matrix::boots()?);
    boots.extend(arches::boots()?);
    for case in case::all()? {
        boots.push(Boot { name: case.name(), long: false, run: Box::new(move || case.boot()) });
    }
    Ok(boots)
}

/// Boots once more if the emulated machine crashed before the kernel started any program, which tests
/// nothing, or in the kernel itself: QEMU has done that without repot too. What repot causes, it causes
/// again.
fn with_second_try(mut boot: impl FnMut() -> Result<Run>) -> Result<Run> {
    let run = boot()?;
    if let Some(crash) = run.crash() {
        eprintln!("the kernel crashed and is booted again: {crash}");
        return boot();
    }
    if run.started() || run.cut_off { Ok(run) } else { boot() }
}

/// An error with a line for each failure.
fn fail_if_any(failures: &[String], files: &Path) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let files = files.strip_prefix(repot_harness::place::checkout()).context("a path below the checkout")?;
    bail!("{}\nsee {}", failures.join("\n"), files.display())
}

/// Files that the kernel executes or opens, or that the probe reads as `/init`: their access times may
/// change.
const READ: [&str; 5] = ["init", "sbin/init", "repot", "dev/console", repot_probe::steps::FILE];

/// What repot removes once it has served: `/init`, if that is repot, and the markers.
const SERVED: [&str; 3] = ["init", ".repot-begin", ".repot-end"];

/// What differs between two trees. The access times of programs that were `executed` may.
fn differences(before: &Snapshot, after: &Snapshot, executed: &[&str]) -> Vec<String> {
    let read = [&READ[..], executed].concat();
    let rules = Rules { atime: Atime::Exact, holes: Holes::NotMore, read: &read, gone: &SERVED };
    difference(before, after, rules).lines().map(str::to_owned).collect()
}

/// The first differences between two trees, and how many more there are.
fn shorten(differences: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = differences.iter().take(SHOWN).map(|line| format!("tree: {line}")).collect();
    if differences.len() > SHOWN {
        lines.push(format!("tree: and {} more", differences.len() - SHOWN));
    }
    lines
}

/// The last lines of the console.
fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().filter(|line| !line.trim().is_empty()).collect();
    // The reason comes before pages of registers.
    let reason = lines.iter().find(|line| line.contains("Kernel panic"));
    reason.into_iter().chain(&lines[lines.len().saturating_sub(4)..]).copied().collect::<Vec<_>>().join(" | ")
}
