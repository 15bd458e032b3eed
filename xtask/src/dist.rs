//! `cargo xtask dist`: builds what is released, and shows where it is and how large.

use anyhow::{Context, Result};
use clap::ValueEnum;
pub(crate) use repot_harness::build::Arch;
use repot_harness::{build, place};
use std::path::Path;

/// The architectures to build for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum Target {
    /// 64-bit PCs
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm
    #[value(name = "aarch64")]
    Aarch64,
    /// 32-bit PCs
    #[value(name = "i686")]
    I686,
    /// all three
    #[value(name = "all")]
    All,
}

/// Builds the programs and prints their paths and sizes.
pub(crate) fn dist(target: Target) -> Result<()> {
    let arches = match target {
        Target::X86_64 => &[Arch::X86_64][..],
        Target::Aarch64 => &[Arch::Aarch64],
        Target::I686 => &[Arch::I686],
        Target::All => &Arch::ALL,
    };
    for arch in arches {
        show(&build::init(*arch)?)?;
        show(&build::init_payload(*arch)?)?;
        show(&build::runner(*arch)?)?;
        // The tool has C libraries, so the other architectures would need a cross compiler each.
        if *arch == Arch::X86_64 {
            show(&build::tool()?)?;
        }
    }
    Ok(())
}

fn show(path: &Path) -> Result<()> {
    let size = std::fs::metadata(path).with_context(|| format!("stat of {}", path.display()))?.len();
    let shown = path.strip_prefix(place::checkout()).unwrap_or(path).display();
    println!("{shown}: {size} bytes, {}", build::linkage(path)?);
    Ok(())
}
