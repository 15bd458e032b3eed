//! `cargo xtask formats`: see [`repot_vm::formats`].

use clap::Parser;

/// Boot odd images on every kernel, and write docs/kernel-formats.md.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask formats",
    bin_name = "cargo xtask formats",
    after_help = "Examples:\n  cargo xtask formats\n  cargo xtask formats lz4"
)]
struct Formats {
    /// Part of the name of an image; then nothing is written
    #[arg(default_value = "")]
    filter: String,
}

fn main() -> anyhow::Result<()> {
    repot_vm::formats::formats(&Formats::parse().filter)
}
