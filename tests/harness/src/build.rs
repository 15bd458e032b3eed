//! Builds the static programs into `target/dist`: the inits, the tool, and what runs inside the virtual
//! machines.
//!
//! They are linked with musl. If its Rust target cannot be installed, a static glibc build for this machine
//! takes its place, so that everything else still works.

mod c_compiler;

use crate::command::{cargo, read, run};
use crate::{debian, place};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An architecture the init is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit PCs.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
    /// 32-bit PCs.
    I686,
}

impl Arch {
    /// All of them.
    pub const ALL: [Arch; 3] = [Arch::X86_64, Arch::Aarch64, Arch::I686];

    /// Its name to Rust and the kernel.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
            Arch::I686 => "i686",
        }
    }
}

/// One program to build.
#[derive(Debug)]
struct Build<'a> {
    /// For messages.
    what: &'a str,
    arch: Arch,
    /// cargo's profile.
    profile: &'a str,
    /// The arguments of cargo that select package, program and features.
    select: &'a [&'a str],
    /// The program's name in cargo's directory.
    program: &'a str,
    /// Its name in `target/dist/ARCH`.
    name: &'a str,
    /// More variables of the environment.
    env: Vec<(String, String)>,
}

/// Builds the init for one architecture and returns its path.
///
/// # Errors
/// If the build fails.
pub fn init(arch: Arch) -> Result<PathBuf> {
    Build {
        what: "repot-init",
        arch,
        profile: "init",
        select: &["--package=repot-init"],
        program: "repot-init",
        name: "init",
        env: Vec::new(),
    }
    .run()
}

/// Builds the init that can also unpack payloads.
///
/// # Errors
/// If the build fails.
pub fn init_payload(arch: Arch) -> Result<PathBuf> {
    Build {
        what: "init-payload",
        arch,
        profile: "init",
        select: &["--package=repot-init", "--features=payload"],
        program: "repot-init",
        name: "init-payload",
        env: c_compiler::variables(arch)?,
    }
    .run()
}

/// Builds the runner of `repot pack --run` for one architecture.
///
/// # Errors
/// If the build fails.
pub fn runner(arch: Arch) -> Result<PathBuf> {
    Build {
        what: "repot-run",
        arch,
        profile: "init",
        select: &["--package=repot-run"],
        program: "repot-run",
        name: "run",
        env: Vec::new(),
    }
    .run()
}

/// Builds `examples/init.rs` of the library, an init with `std`.
///
/// # Errors
/// If the build fails.
pub fn example() -> Result<PathBuf> {
    Build {
        what: "the example of the library",
        arch: Arch::X86_64,
        profile: "release",
        select: &["--package=repot", "--example=init", "--features=std"],
        program: "examples/init",
        name: "example-init",
        env: Vec::new(),
    }
    .run()
}

/// Builds the tool as it is released, with the inits inside.
///
/// # Errors
/// If the build fails.
pub fn tool() -> Result<PathBuf> {
    let (init, payload, run) = (init(Arch::X86_64)?, init_payload(Arch::X86_64)?, runner(Arch::X86_64)?);
    if triple(Arch::X86_64)?.0.ends_with("musl") {
        debian::need(&[debian::MUSL_GCC])?;
    }
    let embedded = [("REPOT_EMBED", &init), ("REPOT_EMBED_PAYLOAD", &payload), ("REPOT_EMBED_RUN", &run)];
    Build {
        what: "repot",
        arch: Arch::X86_64,
        profile: "release",
        select: &["--package=repot-cli", "--bin=repot"],
        program: "repot",
        name: "repot",
        env: embedded.map(|(name, path)| (name.to_owned(), path.display().to_string())).to_vec(),
    }
    .run()
}

/// Builds the program of `bench/decoders` with one decoder, or with "none", by the compiler that builds the
/// init.
///
/// # Errors
/// If the build fails.
pub fn decoder(name: &str) -> Result<PathBuf> {
    Build {
        what: &format!("the decoder {name}"),
        arch: Arch::X86_64,
        profile: "decoders",
        select: &["--package=decoders", &format!("--features={name}")],
        program: "decoders",
        name: &format!("decoder-{name}"),
        env: c_compiler::variables(Arch::X86_64)?,
    }
    .run()
}

/// Builds a program of the workspace that runs inside virtual machines or namespaces: `package` has one of
/// its name.
///
/// # Errors
/// If the build fails.
pub fn guest(package: &str) -> Result<PathBuf> {
    let select = [&*format!("--package={package}"), &*format!("--bin={package}")];
    Build {
        what: package,
        arch: Arch::X86_64,
        profile: "release",
        select: &select,
        program: package,
        name: package,
        env: Vec::new(),
    }
    .run()
}

impl Build<'_> {
    fn run(self) -> Result<PathBuf> {
        // cargo gives both inits the same name: until this one is copied, no other process may build.
        let _lock = place::lock("dist")?;
        let (triple, flags) = triple(self.arch).with_context(|| format!("cannot build {}", self.what))?;
        let mut cargo = cargo();
        cargo.args(["build", "--quiet", "--profile", self.profile, "--target", &triple]).args(self.select);
        run(cargo.envs(flags).envs(self.env))
            .with_context(|| format!("cannot build {} for {triple}", self.what))?;
        let from = place::built().join(&triple).join(self.profile).join(self.program);
        let to = place::kept(&format!("dist/{}", self.arch.name()))?.join(self.name);
        // An equal file keeps its time, because cargo rebuilds the tool if the init inside is newer.
        if !same(&from, &to) {
            std::fs::copy(&from, &to)
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
        Ok(to)
    }
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((std::fs::read(one), std::fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

/// The Rust target to build for, and the variable of the environment that it needs.
///
/// # Errors
/// If the target is missing and cannot be installed.
pub fn triple(arch: Arch) -> Result<(String, Option<(&'static str, &'static str)>)> {
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

/// Installs the standard library of a Rust target, if missing.
///
/// # Errors
/// If it cannot be installed.
pub fn have(triple: &str) -> Result<()> {
    let installed = read(Command::new("rustc").args(["--print", "target-libdir", "--target", triple]))?;
    if Path::new(&installed).is_dir() {
        return Ok(());
    }
    println!("adding the Rust target {triple}");
    read(Command::new("rustup").args(["target", "add", triple])).map(drop).with_context(|| {
        format!("the Rust target {triple} is missing and cannot be added (with rustup: `rustup target add {triple}`)")
    })
}

/// "static-pie", or how else a program is linked, from its ELF headers.
///
/// # Errors
/// If the file cannot be read or is no ELF file.
pub fn linkage(path: &Path) -> Result<&'static str> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let number = |at: usize, len: usize| -> u64 {
        bytes
            .get(at..at + len)
            .map_or(0, |digits| digits.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let Some([0x7f, b'E', b'L', b'F', class]) = bytes.get(..5) else {
        bail!("{} is no ELF file", path.display())
    };
    // Offset, size and number of the program headers, which are elsewhere in 32-bit files.
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
