//! The chores of this repository.
//!
//! Each chore does its own set-up. On Debian and as root it installs the packages that are missing, elsewhere
//! it names them before it starts. Everything that it makes lies below `target/`. The larger programs
//! (`bench`, the boots, the sweeps) are packages of their own, so that this one builds in seconds.

mod demo;
mod dist;
#[cfg(test)]
mod documented;
mod fuzz;
mod lint;
mod release;
mod reproduce;
mod test;

use clap::{Parser, Subcommand};
use repot_harness::build::Arch;
use repot_harness::command::{self, cargo};
use repot_harness::{kernels, place};
use std::ffi::OsString;
use std::process::ExitCode;

/// The chores of repot.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a container on an initramfs root, before and after repot
    #[command(after_help = "Example: cargo xtask demo")]
    Demo,
    /// Run every test, boots in virtual machines included
    #[command(
        after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --no-vm\n  cargo xtask test matrix"
    )]
    Test {
        /// Part of the name of a test or boot
        #[arg(default_value = "")]
        filter: String,
        /// Skip the boots, which need QEMU
        #[arg(long)]
        no_vm: bool,
        /// Virtual machines at a time
        #[arg(long, short, default_value_t = 2)]
        jobs: usize,
    },
    /// Check format, lints, documentation, packages, licenses, and the rules of the house
    #[command(
        after_help = "Examples:\n  cargo xtask lint\n  cargo xtask lint --deep\n  cargo xtask lint --reflow crates/repot/src/walk.rs"
    )]
    Lint(lint::Choice),
    /// Fuzz the parsers of outside bytes, one target after the other
    #[command(
        after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz payload_index --seconds 600\n  cargo xtask fuzz --list"
    )]
    Fuzz(fuzz::Choice),
    /// Build the static /init, and for x86_64 and aarch64 the tool, into target/dist/ARCH
    #[command(after_help = "Examples:\n  cargo xtask dist\n  cargo xtask dist --arch s390x")]
    Dist {
        /// The architectures that run it, separated by commas, or `all`
        #[arg(long, visible_alias = "target", value_name = "ARCH", default_value = "x86_64")]
        arch: dist::Targets,
        /// Skip the tool
        #[arg(long)]
        no_tool: bool,
    },
    /// Build everything that is attached to a release, into target/releases/VERSION
    #[command(after_help = "Examples:\n  cargo xtask release\n  cargo xtask release --arch x86_64,aarch64")]
    Release {
        /// The architectures, separated by commas, or `all`, which has loongarch64 too
        #[arg(long, value_name = "ARCH", default_value = "released")]
        arch: dist::Targets,
    },
    /// Build twice, in different places and with and without the sources of the standard library, and compare
    #[command(after_help = "Examples:\n  cargo xtask reproduce\n  cargo xtask reproduce --release")]
    Reproduce(reproduce::Choice),
    /// Run the boots whose name contains FILTER (tests/README.md lists the kinds)
    #[command(
        after_help = "Examples:\n  cargo xtask boots\n  cargo xtask boots matrix/6.12-ramfs\n  cargo xtask boots --all in-use/\n  cargo xtask boots --arch s390x"
    )]
    Boots {
        /// Part of a boot's name: SCENARIO/KERNEL-ROOTFSTYPE-MODE, or image/, in-use/, run/ and so on, and a
        /// name
        #[arg(default_value = "")]
        filter: String,
        /// Virtual machines at a time
        #[arg(long, short, default_value_t = 2)]
        jobs: usize,
        /// With the boots of long tables of which the tests run a sample
        #[arg(long)]
        all: bool,
        /// All boots of another architecture
        #[arg(long, value_name = "ARCH", value_parser = dist::arch)]
        arch: Option<Arch>,
    },
    /// Boot with less and less memory, and write docs/memory-sweep.md
    #[command(disable_help_flag = true)]
    Sweep(Rest),
    /// Run container images by runc and as machines, and write docs/containers.md
    #[command(disable_help_flag = true)]
    Containers(Rest),
    /// Boot real systems without repot and with it, and write docs/matrix.md
    #[command(disable_help_flag = true)]
    Matrix(Rest),
    /// Build and boot what packaging/ has for other projects
    #[command(disable_help_flag = true)]
    Packaging(Rest),
    /// Boot odd images on every kernel, and write docs/kernel-formats.md
    #[command(disable_help_flag = true)]
    Formats(Rest),
    /// Measure time and memory against other ways of moving a root
    #[command(disable_help_flag = true)]
    Bench(Rest),
    /// Measure `repot pack` against find, cpio and zstd, turn by turn
    #[command(disable_help_flag = true)]
    Packing(Rest),
    /// Compare `repot ls` and `extract` with cpio and the kernel on the images of programs that make an
    /// initramfs
    #[command(disable_help_flag = true)]
    Initrds(Rest),
    /// Let every system call of a run fail in turn, and write docs/faults.md
    #[command(disable_help_flag = true)]
    Faults(Rest),
    /// Compare what `repot pack` reads with what bsdtar and GNU tar extract, on the archives of their own
    /// tests
    #[command(disable_help_flag = true)]
    Archives(Rest),
    /// Download the kernels of the boots into target/kernels
    #[command(after_help = "Example: cargo xtask kernels 6.12 7")]
    Kernels {
        /// Kernel series [default: all]
        series: Vec<String>,
    },
}

/// The arguments of a program that parses them itself.
#[derive(Debug, clap::Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo => demo::demo(),
        Command::Test { filter, no_vm, jobs } => {
            match test::test(&test::Choice { filter: &filter, no_vm, jobs }) {
                // The last line of the output already counts the failures.
                Ok(false) => return ExitCode::FAILURE,
                other => other.map(drop),
            }
        }
        Command::Fuzz(choice) => fuzz::fuzz(&choice),
        Command::Lint(choice) => lint::lint(&choice),
        Command::Dist { arch, no_tool } => dist::dist(&arch, !no_tool),
        Command::Release { arch } => release::release(&arch),
        Command::Reproduce(choice) => reproduce::reproduce(&choice),
        Command::Boots { filter, jobs, all, arch: None } => test::boots(&filter, jobs, all),
        Command::Boots { filter, jobs, arch: Some(arch), .. } => {
            test::boots(&format!("arch/{}/{filter}", arch.name()), jobs, true)
        }
        Command::Sweep(rest) => program(&["--package=repot-vm", "--bin=memory-sweep"], &[], &rest),
        Command::Containers(rest) => program(&["--package=repot-vm", "--bin=run-containers"], &[], &rest),
        Command::Matrix(rest) => program(&["--package=repot-vm", "--bin=matrix"], &[], &rest),
        Command::Packaging(rest) => program(&["--package=repot-vm", "--bin=packaging"], &[], &rest),
        Command::Formats(rest) => program(&["--package=repot-vm", "--bin=kernel-formats"], &[], &rest),
        Command::Bench(rest) => program(&["--package=repot-bench"], &[], &rest),
        Command::Packing(rest) => program(&["--package=repot-bench"], &["packing"], &rest),
        Command::Initrds(rest) => program(&["--package=repot-vm", "--bin=initrds"], &[], &rest),
        Command::Faults(rest) => program(&["--package=repot-tests", "--bin=faults"], &[], &rest),
        Command::Archives(rest) => program(&["--package=repot-tests", "--bin=archives"], &[], &rest),
        Command::Kernels { series } => download(&series),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a program of the workspace with the given arguments.
fn program(select: &[&str], first: &[&str], rest: &Rest) -> anyhow::Result<()> {
    let mut cargo = cargo();
    // Relative paths among the arguments are relative to where the user is.
    cargo.current_dir(std::env::current_dir()?);
    let manifest = place::checkout().join("Cargo.toml");
    cargo.args(["run", "--quiet", "--manifest-path"]).arg(manifest).args(select).arg("--");
    command::run(cargo.args(first).args(&rest.words))
}

fn download(series: &[String]) -> anyhow::Result<()> {
    let all = kernels::series();
    let series = if series.is_empty() { all } else { series.iter().map(String::as_str).collect() };
    for name in series {
        let kernel = kernels::kernel(name)?;
        let package = std::fs::read_to_string(kernel.image.with_file_name("package"))?;
        println!("{}: {}", kernel.series, package.trim());
    }
    Ok(())
}
