//! `cargo xtask demo`: a container on an initramfs root, before and after.
//!
//! Packs a small root of real programs (BusyBox, runc, a bundle) with `repot pack`, and boots the image twice
//! with
//! `repot boot` on a stock Debian kernel: once the kernel runs the root's own init, once it runs repot. Then
//! it shows the file system of `/` and the output of `runc run`. The guest writes plain lines to its second
//! serial port.

mod root;

use anyhow::{Context, Result, bail, ensure};
use repot_harness::build::{self, Arch};
use repot_harness::tool::{self, Tool};
use repot_harness::{debian, kernels, place};
use std::path::Path;
use std::time::Duration;

/// On this series `pivot_root` fails on an initramfs. From 7.0 on it works.
const SERIES: &str = "6.12";

/// What the container prints.
const GREETING: &str = "hello from a container";

/// What the guest reported.
struct Seen {
    kernel: String,
    root: String,
    runc: Vec<String>,
    log: Vec<String>,
    worked: bool,
}

/// Boots both ways and shows the results. Fails unless the container fails without repot and works with it.
pub(crate) fn demo() -> Result<()> {
    debian::need(&[&[debian::QEMU, debian::BUSYBOX, debian::RUNC], &kernels::tools(SERIES)?[..]].concat())?;
    let kernel = kernels::kernel(SERIES)?;
    // The tool finds the init where this puts it.
    build::init(Arch::X86_64)?;
    let repot = Tool::developers()?;
    let folder = place::fresh("demo")?;
    root::make(&folder.join("root"), GREETING).context("cannot create the root of the demo")?;
    let image = folder.join("root.zst");
    println!("packing: repot pack root -o root.zst");
    repot.run(&folder, &["pack", "root", "-o", "root.zst"])?;
    let before = boot(&repot, "before", "quiet rdinit=/sbin/init", &image, &kernel)?;
    show("before: the kernel runs the root's own init", &before);
    let after = boot(&repot, "after", "quiet", &image, &kernel)?;
    show("after: the kernel runs repot, which executes the root's own init", &after);
    let refused =
        |line: &String| line.contains("pivot_root") && line.to_lowercase().contains("invalid argument");
    ensure!(
        !before.worked && before.runc.iter().any(refused),
        "without repot, runc should have failed at pivot_root with \"Invalid argument\""
    );
    ensure!(after.worked, "with repot, the container should have run");
    println!("as expected: the container runs only on the root that repot moved");
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
        bail!("the guest reported nothing; its console is in {}", folder.join("console.txt").display());
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
