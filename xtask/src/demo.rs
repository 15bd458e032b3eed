//! `cargo xtask demo`: a container on an initramfs root, before and after.
//!
//! Packs a small root of real programs (BusyBox, runc, a bundle) twice, with the root's own init as
//! `/init` and with repot as `/init`, boots both on a stock Debian kernel, and shows what `/` was and
//! what `runc run` said. The guest writes plain lines to its second serial port.

mod root;

use crate::{debian, dist, kernels, place, qemu};
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
    let init = dist::init(dist::Arch::X86_64)?;
    let before = boot("before", None, &kernel)?;
    show("before: the root's own init is /init", &before);
    let after = boot("after", Some(&init), &kernel)?;
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

fn boot(name: &str, init: Option<&Path>, kernel: &kernels::Kernel) -> Result<Seen> {
    let folder = place::fresh(&format!("demo/{name}"))?;
    let (tree, image) = (folder.join("root"), folder.join("root.cpio"));
    root::make(&tree, init, GREETING).context("cannot make the demo's root")?;
    crate::boots::pack(&tree, &image)?;
    println!(
        "booting {} ({} MiB) ...",
        image.strip_prefix(place::checkout())?.display(),
        image.metadata()?.len() >> 20
    );
    let machine = qemu::Machine {
        kernel,
        initrd: &image,
        append: "quiet",
        memory_mib: 512,
        cpus: 2,
        limit: Duration::from_secs(120),
        stays: None,
        folder: &folder,
    };
    let run = machine.run()?;
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
