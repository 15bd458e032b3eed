//! `cargo xtask matrix`: see [`repot_vm::matrix`].

use clap::Parser;
use repot_vm::matrix::{Choice, matrix};

/// Boot real systems without repot and with it, in every mode, and write docs/matrix.md.
///
/// A result is kept until the init, the kernel, the root or the rows change, so a run that was stopped goes
/// on where it was.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask matrix",
    bin_name = "cargo xtask matrix",
    after_help = "Examples:\n  cargo xtask matrix --list\n  cargo xtask matrix systemd/move\n  \
                  cargo xtask matrix --json -6.12 | jq '.[].rows'\n  cargo xtask matrix"
)]
struct Matrix {
    /// Part of the name of a boot, SYSTEM/MODE-KERNEL; then nothing is written
    #[arg(default_value = "", allow_hyphen_values = true)]
    filter: String,
    /// Print the names of the boots, and boot nothing
    #[arg(long)]
    list: bool,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    /// Boot again what was measured with the same programs
    #[arg(long)]
    again: bool,
    /// Write the pages also if there is a filter, from everything that was measured with these programs
    #[arg(long)]
    write: bool,
    /// Virtual machines at a time
    #[arg(long, short, default_value_t = 2)]
    jobs: usize,
}

fn main() -> anyhow::Result<()> {
    let Matrix { filter, list, json, again, write, jobs } = Matrix::parse();
    matrix(&Choice { filter: &filter, list, json, again, write, jobs })
}
