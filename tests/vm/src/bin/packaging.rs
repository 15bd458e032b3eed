//! `cargo xtask packaging`: see [`repot_vm::packaging`].

use clap::Parser;

/// Build and boot what packaging/ has for other projects.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask packaging",
    bin_name = "cargo xtask packaging",
    after_help = "Examples:\n  cargo xtask packaging --list\n  cargo xtask packaging dracut\n  cargo xtask packaging"
)]
struct Packaging {
    /// Part of the name of a folder of packaging/
    #[arg(default_value = "")]
    filter: String,
    /// Print the names, and run nothing
    #[arg(long)]
    list: bool,
}

fn main() -> anyhow::Result<()> {
    let Packaging { filter, list } = Packaging::parse();
    repot_vm::packaging::packaging(&filter, list)
}
