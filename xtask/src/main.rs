//! The developer's commands.
//!
//! Each does its own set-up: on Debian and as root it installs the packages it lacks and says so,
//! elsewhere it names them before anything is begun. What it makes lies under `target/`.

mod command;
mod debian;
mod dist;
mod kernels;
mod place;
mod qemu;

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
    /// Build the static /init into target/dist/ARCH/init
    #[command(after_help = "Example: cargo xtask dist --target all")]
    Dist {
        /// The architecture of the machine it is for
        #[arg(long, value_name = "ARCH", default_value = "x86_64")]
        target: dist::Arch,
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
        Command::Dist { target } => dist::dist(target),
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
