//! `cargo xtask sweep`: see [`repot_vm::sweep`].

use clap::Parser;

/// Boot with less and less memory, and write docs/memory-sweep.md.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask sweep",
    bin_name = "cargo xtask sweep",
    after_help = "Examples:\n  cargo xtask sweep\n  cargo xtask sweep 6.12 7"
)]
struct Sweep {
    /// Kernel series
    #[arg(default_value = "6.12")]
    series: Vec<String>,
    /// Virtual machines at a time
    #[arg(long, short, default_value_t = 2)]
    jobs: usize,
}

fn main() -> anyhow::Result<()> {
    let Sweep { series, jobs } = Sweep::parse();
    repot_vm::sweep::sweep(&series, jobs)
}
