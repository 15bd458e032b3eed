//! `cargo xtask dist`: builds what is released, and shows where it is and how large.

use anyhow::{Context, Result, ensure};
use repot_harness::build::{self, Arch};
use repot_harness::place;
use std::path::Path;

/// The architectures that are released. That of loongarch64 is built with unstable features of cargo.
const RELEASED: [Arch; 7] =
    [Arch::X86_64, Arch::Aarch64, Arch::I686, Arch::Armv7, Arch::Riscv64, Arch::Ppc64le, Arch::S390x];

/// The architectures to build for: some, separated by commas, those that are released, or all.
#[derive(Debug, Clone)]
pub(crate) struct Targets(pub(crate) Vec<Arch>);

impl std::str::FromStr for Targets {
    type Err = String;

    fn from_str(name: &str) -> Result<Targets, String> {
        if name == "all" {
            return Ok(Targets(Arch::ALL.to_vec()));
        }
        if name == "released" {
            return Ok(Targets(RELEASED.to_vec()));
        }
        name.split(',').map(arch).collect::<Result<_, _>>().map(Targets)
    }
}

/// The architecture with a name.
pub(crate) fn arch(name: &str) -> Result<Arch, String> {
    let known = || Arch::ALL.map(Arch::name).join(", ");
    Arch::named(name).ok_or_else(|| format!("known architectures: {}", known()))
}

/// What was built.
pub(crate) struct Built {
    /// The architectures of the inits and runners.
    pub(crate) inits: Vec<Arch>,
    /// The architectures of the tool.
    pub(crate) tools: Vec<Arch>,
    /// What was not, and why.
    pub(crate) failures: Vec<String>,
}

/// Builds the programs and prints their paths and sizes. What cannot be built is listed at the end, and is an
/// error.
pub(crate) fn dist(targets: &Targets, with_tool: bool) -> Result<()> {
    let built = build(targets, with_tool)?;
    ensure!(built.failures.is_empty(), "not built:\n  {}", built.failures.join("\n  "));
    Ok(())
}

/// Builds the programs. What cannot be built for one architecture does not stop the others.
pub(crate) fn build(targets: &Targets, with_tool: bool) -> Result<Built> {
    let Targets(arches) = targets;
    let mut built = Built { inits: Vec::new(), tools: Vec::new(), failures: Vec::new() };
    for &arch in arches {
        match inits(arch) {
            Ok(()) => built.inits.push(arch),
            Err(why) => built.failures.push(format!("{}: {why:#}", arch.name())),
        }
    }
    // The tools carry the programs of all architectures that could be built.
    for arch in TOOLS.into_iter().filter(|arch| with_tool && built.inits.contains(arch)) {
        match build::tool_for(arch, &built.inits).and_then(|tool| show(&tool)) {
            Ok(()) => built.tools.push(arch),
            Err(why) => built.failures.push(format!("the tool for {}: {why:#}", arch.name())),
        }
    }
    ensure!(!built.inits.is_empty(), "nothing built:\n  {}", built.failures.join("\n  "));
    Ok(built)
}

/// The architectures that the tool is released for.
const TOOLS: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

fn inits(arch: Arch) -> Result<()> {
    show(&build::init(arch)?)?;
    show(&build::runner(arch)?)?;
    // Last, because it needs a C compiler for the architecture.
    show(&build::init_payload(arch)?)
}

fn show(path: &Path) -> Result<()> {
    let size = std::fs::metadata(path).with_context(|| format!("stat of {}", path.display()))?.len();
    println!("{}: {size} bytes, {}", place::short(path), build::linkage(path)?);
    Ok(())
}
