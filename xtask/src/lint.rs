//! `cargo xtask lint`: what must hold before a change goes in, and with `--deep` the slow checks of memory
//! and threads.

mod deep;
mod packages;
mod reflow;
mod text;
pub(crate) mod toolchain;

use anyhow::{Result, ensure};
use repot_harness::command::run;
use repot_harness::place;
use std::process::Command;
use std::time::Instant;

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct Choice {
    /// Run the slow checks instead: Miri, ThreadSanitizer, loom
    #[arg(long)]
    deep: bool,
    /// Refill the comments of these files to 110 columns instead of checking anything
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "deep")]
    reflow: Vec<std::path::PathBuf>,
}

/// How a check ended that found no error.
enum Outcome {
    Passed,
    /// The machine lacks something; the sentence says what, and how to get it.
    Skipped(String),
}

type Check = (&'static str, fn() -> Result<Outcome>);

/// The cheap checks come first: they fail within a second. What clippy has compiled, rustdoc uses again.
const CHECKS: [Check; 11] = [
    ("format", format),
    ("unsafe code", || text::unsafe_code().map(passed)),
    ("file lengths", || text::lengths().map(passed)),
    ("comment widths", || text::comments().map(passed)),
    ("mirror names", || text::mirrors().map(passed)),
    ("packages", || packages::package().map(passed)),
    ("licenses, bans, sources", || packages::deny().map(passed)),
    ("advisories", packages::advisories),
    ("clippy", clippy),
    ("documentation", documentation),
    ("minimum Rust version", toolchain::minimum),
];

/// Runs the checks and fails with the names of those that found something.
pub(crate) fn lint(choice: &Choice) -> Result<()> {
    if !choice.reflow.is_empty() {
        return reflow::reflow(&choice.reflow);
    }
    let checks = if choice.deep { &deep::CHECKS[..] } else { &CHECKS[..] };
    let mut failed = Vec::new();
    for (name, check) in checks {
        let begun = Instant::now();
        let outcome = check();
        let seconds = begun.elapsed().as_secs_f32();
        match outcome {
            Ok(Outcome::Passed) => println!("lint: {name} ... ok ({seconds:.1} s)"),
            Ok(Outcome::Skipped(why)) => println!("lint: {name} ... skipped: {why}"),
            Err(error) => {
                println!("lint: {name} ... FAILED: {error:#}");
                failed.push(*name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn passed((): ()) -> Outcome {
    Outcome::Passed
}

/// A cargo command in the checkout.
fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(place::checkout()).args(words);
    cargo
}

fn format() -> Result<Outcome> {
    run(&mut cargo(&["fmt", "--all", "--check"])).map(passed)
}

fn clippy() -> Result<Outcome> {
    run(&mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // As they are built for release, without `std` (their build.rs).
    run(alone("clippy", "repot-run")?.args(["--", "-D", "warnings"]))?;
    run(alone("clippy", "repot-init")?.args(["--", "-D", "warnings"])).map(passed)
}

fn documentation() -> Result<Outcome> {
    let mut doc = cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
    run(doc.env("RUSTDOCFLAGS", "-D warnings")).map(passed)
}

fn alone(command: &str, package: &str) -> Result<Command> {
    let (triple, flags) = repot_harness::build::triple(repot_harness::build::Arch::X86_64)?;
    let mut cargo = cargo(&[command, "--quiet", "--package", package, "--profile=init", "--target"]);
    cargo.arg(triple).envs(flags);
    Ok(cargo)
}
