//! `cargo xtask dist`: builds what is released, and shows where it is and how large.

use anyhow::{Context, Result};
use repot_harness::build::{self, Arch};
use repot_harness::place;
use std::path::Path;

/// The architectures to build for: one, or all.
#[derive(Debug, Clone)]
pub(crate) struct Targets(pub(crate) Vec<Arch>);

impl std::str::FromStr for Targets {
    type Err = String;

    fn from_str(name: &str) -> Result<Targets, String> {
        if name == "all" {
            return Ok(Targets(Arch::ALL.to_vec()));
        }
        arch(name).map(|arch| Targets(vec![arch]))
    }
}

/// The architecture with a name.
pub(crate) fn arch(name: &str) -> Result<Arch, String> {
    let known = || Arch::ALL.map(Arch::name).join(", ");
    Arch::named(name).ok_or_else(|| format!("known architectures: {}", known()))
}

/// Builds the programs and prints their paths and sizes.
pub(crate) fn dist(targets: &Targets) -> Result<()> {
    let Targets(arches) = targets;
    for &arch in arches {
        show(&build::init(arch)?)?;
        show(&build::runner(arch)?)?;
        // Last, because it needs a C compiler for the architecture.
        show(&build::init_payload(arch)?)?;
    }
    // The tool has C libraries, so the other architectures would need a C library each.
    if arches.contains(&Arch::X86_64) {
        show(&build::tool(arches)?)?;
    }
    Ok(())
}

fn show(path: &Path) -> Result<()> {
    let size = std::fs::metadata(path).with_context(|| format!("stat of {}", path.display()))?.len();
    let shown = path.strip_prefix(place::checkout()).unwrap_or(path).display();
    println!("{shown}: {size} bytes, {}", build::linkage(path)?);
    Ok(())
}
