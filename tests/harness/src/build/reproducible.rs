//! The flags that keep the paths of this machine out of the programs, so that equal sources become equal
//! bytes.
//!
//! Panics name their source files. Those of the workspace are relative. Those of dependencies are in the home
//! of cargo, and those of the standard library too if the component `rust-src` is installed.

use crate::command::read;
use crate::place;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variables `variables`, with the compiler's flags in them extended.
pub(super) fn flags(variables: Vec<(String, String)>) -> Result<Vec<(String, String)>> {
    let (flags, mut others): (Vec<_>, Vec<_>) =
        variables.into_iter().partition(|(name, _)| name == "RUSTFLAGS");
    let words = flags.iter().flat_map(|(_, flags)| flags.split(' ')).map(str::to_owned);
    let all: Vec<String> = words.chain(remapped()?).collect();
    // Paths may have spaces in them.
    others.push(("CARGO_ENCODED_RUSTFLAGS".to_owned(), all.join("\x1f")));
    Ok(others)
}

/// A flag for each folder whose path differs from machine to machine.
fn remapped() -> Result<Vec<String>> {
    let rustc = || Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let version = read(rustc().arg("-vV"))?;
    let hash = version.lines().find_map(|line| line.strip_prefix("commit-hash: "));
    let library = Path::new(&read(rustc().args(["--print", "sysroot"]))?).join("lib/rustlib/src/rust");
    // What the compiler calls it where the component is missing.
    let named = format!("/rustc/{}", hash.context("rustc names no commit")?);
    let mut flags = vec![flag(&place::checkout(), "/repot"), flag(&library, &named)];
    flags.extend(registries()?.iter().map(|folder| flag(folder, "/cargo")));
    Ok(flags)
}

fn flag(from: &Path, to: &str) -> String {
    format!("--remap-path-prefix={}={to}", from.display())
}

/// The folders of dependencies, one for each registry. They exist: this program has dependencies too.
fn registries() -> Result<Vec<PathBuf>> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir().context("no home directory")?.join(".cargo"),
    };
    let sources = home.join("registry/src");
    let entries =
        std::fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry?;
        // `cargo package` has registries of its own for a while. They have no host, and are no part of a
        // program.
        if !entry.file_name().as_encoded_bytes().starts_with(b"-") {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}
