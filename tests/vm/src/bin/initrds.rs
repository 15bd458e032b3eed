//! `cargo xtask initrds`: see [`repot_vm::initrds`].

use clap::Parser;
use std::path::PathBuf;

/// Compare `ls` and `extract` with cpio and the kernel on the images of programs that make an initramfs.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask initrds",
    bin_name = "cargo xtask initrds",
    after_help = "Examples:\n  cargo xtask initrds\n  cargo xtask initrds dracut --tool target/debug/repot"
)]
struct Initrds {
    /// Part of the name of the images to compare [default: all, and the page is written]
    #[arg(default_value = "", hide_default_value = true)]
    filter: String,
    /// The tool to test [default: build it]
    #[arg(long, value_name = "FILE")]
    tool: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let Initrds { filter, tool } = Initrds::parse();
    repot_vm::initrds::initrds(&filter, tool.as_deref())
}
