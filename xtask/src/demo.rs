//! `cargo xtask demo`: a container on an initramfs root, before and after.
//!
//! Packs a small root of real programs (BusyBox, runc, a bundle) with `repot pack` and boots the image twice with
//! `repot boot` on a stock Debian kernel: once with the root's own init as what the kernel runs, once with repot,
//! and shows what `/` was and what `runc run` said. The guest writes plain lines to its second serial port.

mod root;

use crate::tool::{self, Tool};
use crate::{debian, dist, kernels, place};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::time::Duration;

/// A series on which nobody can pivot away from an initramfs: from 7.0 on the kernel helps.
const SERIES: &str = "6.12";

/// What the container says when it runs.
const GREETING: &str = "hello from a container";

/// What the guest told.
struct Seen {
    kernel: String,
    root: String,
    runc: Vec<String>,
    log: Vec<String>,
    worked: bool,
}

/// Boots both and shows them; fails unless the first fails and the second works.
pub(crate) fn demo() -> Result<()> {
    debian::need(&[&[debian::QEMU, debian::BUSYBOX, debian::RUNC], &kernels::tools(SERIES)?[..]].concat())?;
    let kernel = kernels::kernel(SERIES)?;
    // The tool takes it from where this puts it.
    dist::init(dist::Arch::X86_64)?;
    let repot = Tool::developers()?;
    let folder = place::fresh("demo")?;
    root::make(&folder.join("root"), GREETING).context("cannot make the demo's root")?;
    let image = folder.join("root.zst");
    println!("packing: repot pack root -o root.zst");
    repot.run(&folder, &["pack", "root", "-o", "root.zst"])?;
    let before = boot(&repot, "before", "quiet rdinit=/sbin/init", &image, &kernel)?;
    show("before: the root's own init is what the kernel runs", &before);
    let after = boot(&repot, "after", "quiet", &image, &kernel)?;
    show("after: repot is /init, and executes the root's own init", &after);
    let refused =
        |line: &String| line.contains("pivot_root") && line.to_lowercase().contains("invalid argument");
    ensure!(
        !before.worked && before.runc.iter().any(refused),
        "without repot runc was expected to fail at pivot_root with \"Invalid argument\", and did not"
    );
    ensure!(after.worked, "with repot the container was expected to run, and did not");
    println!("both as expected: the container runs on the root that repot moved, and on the other it cannot");
    Ok(())
}

fn boot(repot: &Tool, name: &str, append: &str, image: &Path, kernel: &kernels::Kernel) -> Result<Seen> {
    let folder = place::fresh(&format!("demo/{name}"))?;
    println!(
        "booting: repot boot {} --append '{append}' ({} MiB) ...",
        image.strip_prefix(place::checkout())?.display(),
        image.metadata()?.len() >> 20
    );
    let limit = Duration::from_secs(120);
    let run = repot.boot(&tool::Boot { image, kernel, append, memory_mib: 512, limit, folder: &folder })?;
    if run.cut_off || run.report.is_empty() {
        bail!("the guest said nothing; its console is {}", folder.join("console.txt").display());
    }
    Ok(read(&run.report))
}

fn read(report: &str) -> Seen {
    let all = |key: &str| -> Vec<String> {
        report
            .lines()
            .filter_map(|line| line.strip_prefix(key))
            .map(|line| line.trim_end().to_owned())
            .collect()
    };
    let one = |key: &str| all(key).into_iter().next().unwrap_or_default();
    let runc = all("runc: ");
    let worked = one("exit: ") == "0" && runc.iter().any(|line| line.contains(GREETING));
    Seen { kernel: one("kernel: "), root: one("root: "), runc, log: all("log: "), worked }
}

fn show(title: &str, seen: &Seen) {
    println!("\n{title}");
    println!("  kernel    {}", seen.kernel);
    println!("  /         {}", seen.root);
    for line in &seen.log {
        println!("  log       {line}");
    }
    for line in &seen.runc {
        println!("  runc run  {line}");
    }
    println!("  container {}\n", if seen.worked { "RUNS" } else { "FAILS" });
}
