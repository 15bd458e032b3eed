//! The guest program, built for where nothing of the machine is.

use crate::dist::{self, Arch};
use anyhow::Result;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The static program of `guest/main.rs`, built once a run.
pub(crate) fn guest() -> Result<PathBuf> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PROGRAM.get() {
        return Ok(path.clone());
    }
    let package = ["--package=xtask", "--no-default-features", "--bin=bench-guest"];
    let path = dist::build(
        "the benchmark's guest",
        "bench-guest",
        "release",
        &package,
        Arch::X86_64,
        "bench-guest",
    )?;
    Ok(PROGRAM.get_or_init(|| path).clone())
}
