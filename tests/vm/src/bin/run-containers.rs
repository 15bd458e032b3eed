//! `cargo xtask containers`: see [`repot_vm::containers`].

use clap::Parser;

/// Run container images by runc and as machines, and write docs/containers.md.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask containers",
    bin_name = "cargo xtask containers",
    after_help = "Examples:\n  cargo xtask containers\n  cargo xtask containers python"
)]
struct Containers {
    /// Part of the name of an image; then nothing is written
    #[arg(default_value = "")]
    filter: String,
}

fn main() -> anyhow::Result<()> {
    repot_vm::containers::containers(&Containers::parse().filter)
}
