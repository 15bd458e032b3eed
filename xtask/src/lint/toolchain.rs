//! Toolchains other than the developer's own: the oldest that is supported, and nightly.

use super::Outcome;
use anyhow::{Context, Result};
use repot_harness::command::{exists, read, run};
use repot_harness::place;
use std::process::Command;

/// Compiles what is published with the `rust-version` of Cargo.toml.
pub(super) fn minimum() -> Result<Outcome> {
    let version = rust_version()?;
    if let Some(why) = install(&version) {
        return Ok(Outcome::Skipped(why));
    }
    let target = place::kept("minimum")?;
    let check = |words: &[&str]| {
        let mut cargo = with(&version);
        cargo.args(["check", "--quiet", "--locked"]).args(words);
        run(cargo.env("CARGO_TARGET_DIR", &target))
    };
    check(&["--package=repot", "--package=repot-cli", "--all-features"])?;
    check(&["--package=repot-init", "--all-features"])?;
    check(&["--package=repot-run"])?;
    Ok(Outcome::Passed)
}

/// `1.88` means its first release: that is the one which has to work.
fn rust_version() -> Result<String> {
    let text = std::fs::read_to_string(place::checkout().join("Cargo.toml"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("rust-version = \""));
    let version = line.and_then(|rest| rest.split('"').next()).context("Cargo.toml has no rust-version")?;
    Ok(if version.matches('.').count() == 1 { format!("{version}.0") } else { version.to_owned() })
}

/// Makes sure that rustup has a toolchain; if it cannot, returns one sentence that says so.
fn install(version: &str) -> Option<String> {
    if !exists("rustup") {
        return Some(format!("rustup is not installed, so Rust {version} cannot be fetched"));
    }
    if read(with(version).arg("--version")).is_ok() {
        return None;
    }
    println!("fetching Rust {version}");
    let mut rustup = Command::new("rustup");
    rustup.args(["toolchain", "install", version, "--profile", "minimal", "--no-self-update"]);
    read(&mut rustup).err().map(|_| format!("rustup cannot fetch Rust {version} here"))
}

/// The cargo of one toolchain, in the checkout.
pub(crate) fn with(toolchain: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(place::checkout()).arg(format!("+{toolchain}"));
    // Cargo and rustup set these for xtask's own toolchain; they would choose it again.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(name);
    }
    cargo
}

/// What nightly lacks of these components, as one sentence with the command that installs it.
pub(crate) fn nightly_lacks(components: &[&str]) -> Option<String> {
    let install =
        format!("rustup toolchain install nightly --component {}", components.join(" --component "));
    if !exists("rustup") {
        return Some(format!("rustup is not installed; with it, run `{install}`"));
    }
    let list =
        read(Command::new("rustup").args(["component", "list", "--toolchain", "nightly", "--installed"]));
    let has =
        |name: &&&str| list.as_ref().is_ok_and(|list| list.lines().any(|line| line.starts_with(**name)));
    let missing: Vec<&str> = components.iter().filter(|name| !has(name)).copied().collect();
    (!missing.is_empty()).then(|| format!("nightly lacks {}; run `{install}`", missing.join(" and ")))
}
