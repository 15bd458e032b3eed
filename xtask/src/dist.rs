//! `cargo xtask dist`: what is released, under `target/dist`: the static `/init` for each architecture, and the tool,
//! static too and with the init in it, for this one.
//!
//! musl is what is shipped. Where its target cannot be had, a static glibc build for this machine
//! stands in, so that everything else here still works.

mod payload;

use crate::command::{read, run};
use crate::{debian, place};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An architecture the init is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum Arch {
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

impl Arch {
    fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
            Arch::I686 => "i686",
            Arch::All => "all",
        }
    }
}

/// Builds the programs and says where they are and how large.
pub(crate) fn dist(arch: Arch) -> Result<()> {
    let arches = if arch == Arch::All { vec![Arch::X86_64, Arch::Aarch64, Arch::I686] } else { vec![arch] };
    for arch in arches {
        show(&init(arch)?)?;
        show(&init_payload(arch)?)?;
        // The tool compresses with libraries in C, for which the others would need a cross compiler each.
        if arch == Arch::X86_64 {
            show(&tool()?)?;
        }
    }
    Ok(())
}

fn show(path: &Path) -> Result<()> {
    let size = std::fs::metadata(path).with_context(|| format!("stat of {}", path.display()))?.len();
    let shown = path.strip_prefix(place::checkout()).unwrap_or(path).display();
    println!("{shown}: {size} bytes, {}", linkage(path)?);
    Ok(())
}

/// Builds the init for one architecture and gives its path.
pub(crate) fn init(arch: Arch) -> Result<PathBuf> {
    build("repot-init", "repot-init", "init", &["--package=repot-init"], arch, "init")
}

/// Builds the tool as it is released, with the init in it, and gives its path.
pub(crate) fn tool() -> Result<PathBuf> {
    let (init, payload) = (init(Arch::X86_64)?, init_payload(Arch::X86_64)?);
    if triple(Arch::X86_64)?.0.ends_with("musl") {
        debian::need(&[debian::MUSL_GCC])?;
    }
    let embedded = [("REPOT_EMBED", &init), ("REPOT_EMBED_PAYLOAD", &payload)];
    let embedded = embedded.map(|(name, path)| (name.to_owned(), path.display().to_string()));
    let package = ["--package=repot-cli", "--bin=repot"];
    build_with("repot", "repot", "release", &package, Arch::X86_64, "repot", &embedded)
}

/// Builds the init that can unpack payloads too.
pub(crate) fn init_payload(arch: Arch) -> Result<PathBuf> {
    let package = ["--package=repot-init", "--features=payload"];
    build_with(
        "init-payload",
        "repot-init",
        "init",
        &package,
        arch,
        "init-payload",
        &payload::compiler(arch)?,
    )
}

/// Builds the program that decompresses with the decoder of that name, or with "none", by the compiler that the init is built with.
pub(crate) fn decoder(name: &str) -> Result<PathBuf> {
    let (what, feature) = (format!("the decoder {name}"), format!("--features={name}"));
    let package = ["--package=decoders", &feature];
    let compiler = payload::compiler(Arch::X86_64)?;
    build_with(&what, "decoders", "decoders", &package, Arch::X86_64, &format!("decoder-{name}"), &compiler)
}

/// Builds the guest's probe for this machine's guests.
pub(crate) fn probe() -> Result<PathBuf> {
    let package = ["--package=xtask", "--no-default-features", "--bin=probe"];
    build("the probe", "probe", "release", &package, Arch::X86_64, "probe")
}

pub(crate) fn build(
    what: &str,
    bin: &str,
    profile: &str,
    package: &[&str],
    arch: Arch,
    name: &str,
) -> Result<PathBuf> {
    build_with(what, bin, profile, package, arch, name, &[])
}

fn build_with(
    what: &str,
    bin: &str,
    profile: &str,
    package: &[&str],
    arch: Arch,
    name: &str,
    more: &[(String, String)],
) -> Result<PathBuf> {
    // Both inits come out of cargo under one name: until it is copied, no other xtask may build.
    let lock = File::create(place::kept("lock")?.join("dist")).context("cannot make target/lock/dist")?;
    flock(&lock, FlockOperation::LockExclusive).context("cannot lock target/lock/dist")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(place::checkout()).args(["build", "--quiet", "--profile", profile]).args(package);
    let (triple, flags) = triple(arch).with_context(|| format!("cannot build {what}"))?;
    cargo.envs(flags).envs(more.iter().cloned());
    run(cargo.args(["--target", &triple])).with_context(|| format!("{what} for {triple} does not build"))?;
    let from = place::built().join(&triple).join(profile).join(bin);
    let to = place::kept(&format!("dist/{}", arch.name()))?.join(name);
    // What is the same stays as it is: the tool is built anew when the init it holds is newer.
    if !same(&from, &to) {
        std::fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(to)
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((std::fs::read(one), std::fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

/// The target to build for, and what of the environment that needs.
pub(crate) fn triple(arch: Arch) -> Result<(String, Option<(&'static str, &'static str)>)> {
    let musl = format!("{}-unknown-linux-musl", arch.name());
    match have(&musl) {
        Ok(()) => Ok((musl, None)),
        Err(why) if arch == Arch::X86_64 => {
            println!("{why:#}; building against static glibc instead");
            let flags = ("RUSTFLAGS", "-C target-feature=+crt-static");
            Ok(("x86_64-unknown-linux-gnu".to_owned(), Some(flags)))
        }
        Err(why) => Err(why),
    }
}

/// The target's standard library, installed when it is not there.
pub(crate) fn have(triple: &str) -> Result<()> {
    let installed = read(Command::new("rustc").args(["--print", "target-libdir", "--target", triple]))?;
    if Path::new(&installed).is_dir() {
        return Ok(());
    }
    println!("adding the Rust target {triple}");
    read(Command::new("rustup").args(["target", "add", triple])).map(drop).with_context(|| {
        format!("the Rust target {triple} is missing and cannot be added (with rustup: `rustup target add {triple}`)")
    })
}

/// "static-pie", or what it is instead, from the file's own headers.
pub(crate) fn linkage(path: &Path) -> Result<&'static str> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let number = |at: usize, len: usize| -> u64 {
        bytes
            .get(at..at + len)
            .map_or(0, |digits| digits.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let Some([0x7f, b'E', b'L', b'F', class]) = bytes.get(..5) else {
        bail!("{} is no ELF file", path.display())
    };
    // Offset, size and number of the program headers: the two classes differ in all three places.
    let (table, entry, count) = if *class == 2 {
        (number(32, 8), number(54, 2), number(56, 2))
    } else {
        (number(28, 4), number(42, 2), number(44, 2))
    };
    let interpreter =
        (0..count).any(|header| usize::try_from(table + header * entry).is_ok_and(|at| number(at, 4) == 3));
    Ok(match (number(16, 2), interpreter) {
        (3, false) => "static-pie",
        (2, false) => "static, at a fixed address",
        (_, true) => "dynamically linked",
        _ => "not a program",
    })
}
