//! The developer's commands.
//!
//! Each does its own set-up: on Debian and as root it installs the packages it lacks and says so,
//! elsewhere it names them before anything is begun. What it makes lies under `target/`.

mod bench;
mod boots;
mod command;
mod debian;
mod demo;
mod dist;
mod faults;
mod fuzz;
mod images;
mod kernels;
mod lint;
mod packing;
mod place;
mod qemu;
mod test;
mod tool;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The developer's commands of repot.
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
    /// Run every test, virtual machines included
    #[command(
        after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --no-vm\n  cargo xtask test matrix"
    )]
    Test {
        /// Part of the name of a test or boot
        #[arg(default_value = "")]
        filter: String,
        /// Leave out what needs QEMU
        #[arg(long)]
        no_vm: bool,
        /// Machines at a time
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
    /// Build the static /init, and for x86_64 the tool, into target/dist/ARCH
    #[command(after_help = "Example: cargo xtask dist --target all")]
    Dist {
        /// The architecture of the machine it is for
        #[arg(long, value_name = "ARCH", default_value = "x86_64")]
        target: dist::Arch,
    },
    /// Boot every scenario of tests/boots, and every image the tool makes, whose name contains FILTER
    #[command(
        after_help = "Examples:\n  cargo xtask boots\n  cargo xtask boots matrix/6.12-ramfs\n  cargo xtask boots image/"
    )]
    Boots {
        /// Part of a boot's name: SCENARIO/KERNEL-ROOTFSTYPE-MODE, or image/NAME
        #[arg(default_value = "")]
        filter: String,
        /// Machines at a time
        #[arg(long, short, default_value_t = 2)]
        jobs: usize,
    },
    /// Boot with less and less memory, and write docs/memory-sweep.md
    #[command(after_help = "Examples:\n  cargo xtask sweep\n  cargo xtask sweep 6.12 7")]
    Sweep {
        /// Kernel series
        #[arg(default_value = "6.12")]
        series: Vec<String>,
        /// Machines at a time
        #[arg(long, short, default_value_t = 2)]
        jobs: usize,
    },
    /// Measure time and memory against other ways of moving a root
    #[command(
        after_help = "Examples:\n  cargo xtask bench --quick --tree debian\n  cargo xtask bench --peer NAME=PATH"
    )]
    Bench(bench::Bench),
    /// Measure `repot pack` against find, cpio and zstd, turn by turn
    #[command(after_help = "Example: cargo xtask packing debian --rounds 5")]
    Packing {
        /// The directory to pack
        root: std::path::PathBuf,
        /// Levels of zstd
        #[arg(long, default_values_t = [3, 9], value_delimiter = ',')]
        levels: Vec<u32>,
        /// How often
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Let every system call of a run fail in turn, and write docs/faults.md
    #[command(
        after_help = "Examples:\n  cargo xtask faults\n  cargo xtask faults --call utimensat\n  cargo xtask faults --every 50"
    )]
    Faults {
        /// Only this call
        #[arg(long)]
        call: Option<String>,
        /// Only every Nth point
        #[arg(long, value_name = "N", default_value_t = 1)]
        every: usize,
        /// Runs at a time
        #[arg(long, short, default_value_t = 2)]
        jobs: usize,
        /// Of a run that unpacks a payload, into docs/faults-payload.md
        #[arg(long)]
        payload: bool,
    },
    /// Download the kernels the boots run on into target/kernels
    #[command(after_help = "Example: cargo xtask kernels 6.12 7")]
    Kernels {
        /// Series; all when none is named
        series: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo => demo::demo(),
        Command::Test { filter, no_vm, jobs } => {
            match test::test(&test::Choice { filter: &filter, no_vm, jobs }) {
                // How many is the last line already.
                Ok(false) => return ExitCode::FAILURE,
                other => other.map(drop),
            }
        }
        Command::Fuzz(choice) => fuzz::fuzz(&choice),
        Command::Lint(choice) => lint::lint(&choice),
        Command::Dist { target } => dist::dist(target),
        Command::Boots { filter, jobs } => boot(&filter, jobs),
        Command::Sweep { series, jobs } => boots::sweep(&series, jobs),
        Command::Bench(what) => bench::bench(&what),
        Command::Faults { call, every, jobs, payload } => {
            let choice = faults::Choice { call: call.as_deref(), step: every, jobs };
            if payload { faults::payload::sweep(&choice) } else { faults::sweep(&choice) }
        }
        Command::Packing { root, levels, rounds } => packing::packing(&root, &levels, rounds),
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

fn boot(filter: &str, jobs: usize) -> anyhow::Result<()> {
    let (boots, images) = (boots::run(filter, jobs)?, images::run(filter, jobs)?);
    let score = boots::Score { passed: boots.passed + images.passed, failed: boots.failed + images.failed };
    println!("{} passed, {} failed", score.passed, score.failed);
    anyhow::ensure!(score.failed == 0, "{} boots failed", score.failed);
    Ok(())
}
