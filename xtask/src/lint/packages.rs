//! What is published, and what it depends on.

use super::{Outcome, cargo};
use anyhow::{Context, Result, bail};
use repot_harness::command::{exists, read, run};
use repot_harness::place;
use std::path::PathBuf;
use std::process::Command;

/// Packages every crate that can be published. What is inside them is compiled by the release checklist, not
/// here.
pub(super) fn package() -> Result<()> {
    let mut package = cargo(&["package", "--quiet", "--allow-dirty", "--no-verify"]);
    // A folder of its own, so that this never waits for a build.
    package.arg("--target-dir").arg(place::kept("package")?);
    for name in published()? {
        package.args(["--package", &name]);
    }
    read(&mut package).map(drop)
}

/// The names of the workspace members that may be published.
fn published() -> Result<Vec<String>> {
    let text = read(&mut cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let open = packages.iter().filter(|package| package["publish"].is_null());
    Ok(open.filter_map(|package| package["name"].as_str()).map(str::to_owned).collect())
}

pub(super) fn deny() -> Result<()> {
    let checks = ["--log-level", "error", "check", "licenses", "bans", "sources"];
    read(Command::new(cargo_deny()?).current_dir(place::checkout()).args(checks)).map(drop)
}

/// Checks the lock file against the advisory database, where that database can be fetched or was fetched
/// before.
pub(super) fn advisories() -> Result<Outcome> {
    let mut fetch = Command::new(cargo_deny()?);
    let fetched = read(fetch.current_dir(place::checkout()).args(["--log-level", "error", "fetch", "db"]));
    let mut check = Command::new(cargo_deny()?);
    check.current_dir(place::checkout()).args([
        "--log-level",
        "error",
        "check",
        "--disable-fetch",
        "advisories",
    ]);
    match (fetched, read(&mut check)) {
        (_, Ok(_)) => Ok(Outcome::Passed),
        // The check was made on a current database, so what it found is real.
        (Ok(_), Err(error)) => bail!(error),
        (Err(_), Err(error)) if format!("{error:#}").contains("RUSTSEC-") => bail!(error),
        (Err(_), Err(_)) => Ok(Outcome::Skipped(
            "the advisory database of RustSec cannot be fetched here; run `cargo deny check advisories` online".into(),
        )),
    }
}

/// The one in target/tools, the system's, or one that is built now.
fn cargo_deny() -> Result<PathBuf> {
    let tools = place::kept("tools")?;
    let ours = tools.join("bin/cargo-deny");
    if !ours.exists() {
        if exists("cargo-deny") {
            return Ok("cargo-deny".into());
        }
        println!("building cargo-deny into target/tools; this takes some minutes");
        run(cargo(&["install", "--quiet", "cargo-deny", "--locked", "--root"]).arg(&tools))?;
    }
    Ok(ours)
}
