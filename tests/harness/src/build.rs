//! Builds the static programs into `target/dist`: the inits, the tool, and what runs inside the virtual
//! machines.
//!
//! They are linked with musl. If its Rust target cannot be installed, a static glibc build for this machine
//! takes its place, so that everything else still works.

mod c_compiler;
mod libraries;
mod musl;
mod reproducible;

pub use crate::arch::Arch;
use crate::arch::Library;
use crate::command::{cargo, read, run};
use crate::{debian, place};
use anyhow::{Context, Result, bail};
pub use libraries::{Linked, libraries};
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Builds the tool as it is released, with the programs for these architectures inside.
///
/// # Errors
/// If a build fails.
pub fn tool(inside: &[Arch]) -> Result<PathBuf> {
    tool_for(Arch::X86_64, inside)
}

/// Builds the tool for x86_64 or aarch64.
///
/// # Errors
/// If a build fails.
pub fn tool_for(arch: Arch, inside: &[Arch]) -> Result<PathBuf> {
    let names: Vec<&str> = inside.iter().map(|arch| arch.name()).collect();
    let embedded = place::kept(&format!("dist/embedded/{}", names.join("+")))?;
    for &arch in inside {
        embed(&[init(arch)?, init_payload(arch)?, runner(arch)?], &embedded.join(arch.name()))?;
    }
    let mut env = c_compiler::whole(arch)?;
    env.push(("REPOT_EMBED".to_owned(), embedded.display().to_string()));
    env.push(("CARGO_PROFILE_RELEASE_STRIP".to_owned(), "symbols".to_owned()));
    Build {
        what: "repot",
        arch,
        profile: "release",
        select: &["--package=repot-cli", "--bin=repot"],
        program: "repot",
        name: "repot",
        env,
    }
    .run()
}

/// Compresses programs into a folder. What is there already keeps its time, or cargo would build the tool
/// again.
fn embed(programs: &[PathBuf], folder: &Path) -> Result<()> {
    debian::need(&[("zstd", "zstd")])?;
    let _lock = place::lock("embedded")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for program in programs {
        let name = program.file_name().context("a program has a name")?.to_string_lossy();
        let packed = folder.join(format!("{name}.zst"));
        let changed = |path: &Path| std::fs::metadata(path).and_then(|facts| facts.modified());
        if changed(&packed).is_ok_and(|packed| changed(program).is_ok_and(|program| packed >= program)) {
            continue;
        }
        // Under another name until it is whole.
        let part = folder.join(format!("{name}.part"));
        run(Command::new("zstd").args(["-q", "-f", "-19", "--single-thread", "-o"]).arg(&part).arg(program))?;
        std::fs::rename(&part, &packed).with_context(|| format!("cannot keep {}", packed.display()))?;
    }
    Ok(())
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
    guest_for(Arch::X86_64, package)
}

/// Does the same for virtual machines of another architecture.
///
/// # Errors
/// If the build fails.
pub fn guest_for(arch: Arch, package: &str) -> Result<PathBuf> {
    let select = [&*format!("--package={package}"), &*format!("--bin={package}")];
    Build {
        what: package,
        arch,
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
        let flags = reproducible::flags(flags)?;
        let mut cargo = cargo();
        if let (_, Library::Built) = target(self.arch)? {
            cargo.args(musl::of_rust(self.profile == "init")).env("RUSTC_BOOTSTRAP", "1");
        }
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

/// The Rust target to build for, and the variables of the environment that it needs.
///
/// # Errors
/// If the target or its linker is missing and cannot be installed.
pub fn triple(arch: Arch) -> Result<(String, Vec<(String, String)>)> {
    let static_flag = ("RUSTFLAGS".to_owned(), "-C target-feature=+crt-static".to_owned());
    match target(arch) {
        // Some of Rust's targets link musl dynamically by default.
        Ok((triple, Library::Musl)) => {
            let default = matches!(arch, Arch::X86_64 | Arch::Aarch64 | Arch::I686);
            Ok((triple.to_owned(), if default { Vec::new() } else { vec![static_flag] }))
        }
        Ok((triple, Library::Built)) => {
            let flags = musl::flags(arch)?;
            Ok((triple.to_owned(), vec![(static_flag.0, format!("{} {flags}", static_flag.1))]))
        }
        Ok((triple, Library::Glibc)) => {
            let compiler = arch.c_compiler();
            let (library, package) = arch.c_library();
            debian::need(&[compiler])?;
            debian::need_file(Path::new(&library), &package)?;
            let name = triple.to_uppercase().replace('-', "_");
            let linker = (format!("CARGO_TARGET_{name}_LINKER"), compiler.0.to_owned());
            // The static libc calls functions of libgcc, which Rust links before it.
            let flags = (static_flag.0, format!("{} -C link-arg=-lgcc", static_flag.1));
            Ok((triple.to_owned(), vec![flags, linker]))
        }
        Err(why) if arch == Arch::X86_64 => {
            println!("{why:#}; building against static glibc instead");
            Ok(("x86_64-unknown-linux-gnu".to_owned(), vec![static_flag]))
        }
        Err(why) => Err(why),
    }
}

/// The first Rust target of an architecture that is installed, else the first one that can be added.
fn target(arch: Arch) -> Result<(&'static str, Library)> {
    let targets = arch.targets();
    let present = |(triple, library): &&(&str, Library)| match library {
        Library::Built => musl::is_present(arch),
        Library::Musl | Library::Glibc => installed(triple).unwrap_or(false),
    };
    if let Some(found) = targets.iter().find(present) {
        return Ok(*found);
    }
    let mut failures = Vec::new();
    for (triple, library) in targets {
        let have = match library {
            Library::Built => musl::have(arch),
            Library::Musl | Library::Glibc => have(triple),
        };
        match have {
            Ok(()) => return Ok((triple, *library)),
            Err(why) => failures.push(format!("{why:#}")),
        }
    }
    bail!("{}", failures.join("; "))
}

/// Installs the compilers for an architecture, if missing.
///
/// # Errors
/// If they cannot be installed.
pub fn ready(arch: Arch) -> Result<()> {
    c_compiler::variables(arch).map(drop)
}

/// Installs the standard library of a Rust target, if missing.
///
/// # Errors
/// If it cannot be installed.
pub fn have(triple: &str) -> Result<()> {
    let _lock = place::lock("rustup")?;
    if installed(triple)? {
        return Ok(());
    }
    println!("adding the Rust target {triple}");
    let mut add = Command::new("rustup");
    read(add.args(["target", "add", triple]).env("RUST_BACKTRACE", "0")).map(drop).with_context(|| {
        format!("the Rust target {triple} is missing and cannot be added (with rustup: `rustup target add {triple}`)")
    })
}

fn installed(triple: &str) -> Result<bool> {
    let libraries = read(Command::new("rustc").args(["--print", "target-libdir", "--target", triple]))?;
    Ok(Path::new(&libraries).is_dir())
}

/// "static-pie", or how else a program is linked, from its ELF headers.
///
/// # Errors
/// If the file cannot be read or is no ELF file.
pub fn linkage(path: &Path) -> Result<&'static str> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let Some([0x7f, b'E', b'L', b'F', class, order]) = bytes.get(..6) else {
        bail!("{} is no ELF file", path.display())
    };
    let number = |at: usize, len: usize| -> u64 {
        let digits = bytes.get(at..at + len).unwrap_or_default();
        let sum = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if *order == 2 { digits.iter().fold(0, sum) } else { digits.iter().rev().fold(0, sum) }
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
