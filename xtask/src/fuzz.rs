//! `cargo xtask fuzz`: the targets of `fuzz/`, one after the other, each for some seconds.

use crate::lint::toolchain::{nightly_lacks, with};
use anyhow::{Context, Result, bail, ensure};
use repot_harness::command::{exists, run};
use repot_harness::place;
use std::process::Command;

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub(crate) struct Choice {
    /// Targets; all when none is named
    target: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// List the targets
    #[arg(long)]
    list: bool,
}

/// Runs the targets. A crash ends its target; the others still run.
pub(crate) fn fuzz(choice: &Choice) -> Result<()> {
    let all = targets()?;
    if choice.list {
        println!("{}", all.join("\n"));
        return Ok(());
    }
    if let Some(name) = choice.target.iter().find(|name| !all.contains(name)) {
        bail!("no fuzz target {name}; the targets are {}", all.join(", "));
    }
    if let Some(why) = nightly_lacks(&["rustc"]) {
        bail!(why);
    }
    install()?;
    run(cargo().args(["fuzz", "build"])).context("the fuzz targets do not build")?;
    let chosen = if choice.target.is_empty() { &all } else { &choice.target };
    let mut crashed = Vec::new();
    for name in chosen {
        match one(name, choice.seconds) {
            Ok(()) => println!("fuzz: {name} ... ok"),
            Err(error) => {
                println!("fuzz: {name} ... FAILED: {error:#}");
                crashed.push(name.as_str());
            }
        }
    }
    ensure!(crashed.is_empty(), "crashed: {}; the inputs are in fuzz/artifacts", crashed.join(", "));
    Ok(())
}

/// The names of the targets: those of the files in `fuzz/targets`.
fn targets() -> Result<Vec<String>> {
    let folder =
        std::fs::read_dir(place::checkout().join("fuzz/targets")).context("cannot list fuzz/targets")?;
    let mut names = Vec::new();
    for entry in folder {
        let name = entry?.file_name().into_string().unwrap_or_default();
        names.extend(name.strip_suffix(".rs").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn one(name: &str, seconds: u32) -> Result<()> {
    let mut fuzz = cargo();
    fuzz.args(["fuzz", "run", name, "--"]);
    fuzz.args([format!("-max_total_time={seconds}"), "-timeout=20".into(), "-rss_limit_mb=2048".into()]);
    fuzz.args(["-verbosity=0", "-print_final_stats=1"]);
    let words = place::checkout().join(format!("fuzz/dictionaries/{name}.dict"));
    if words.exists() {
        fuzz.arg(format!("-dict={}", words.display()));
    }
    run(&mut fuzz)
}

/// Nightly's cargo, with a cargo-fuzz that was built into target/tools in its path.
fn cargo() -> Command {
    let mut cargo = with("nightly");
    let mut folders = vec![place::checkout().join("target/tools/bin")];
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    if let Ok(path) = std::env::join_paths(folders) {
        cargo.env("PATH", path);
    }
    cargo
}

fn install() -> Result<()> {
    let tools = place::kept("tools")?;
    if exists("cargo-fuzz") || tools.join("bin/cargo-fuzz").exists() {
        return Ok(());
    }
    println!("building cargo-fuzz into target/tools");
    let words = ["install", "--quiet", "cargo-fuzz", "--locked", "--root"];
    run(Command::new("cargo").args(words).arg(&tools))
}
