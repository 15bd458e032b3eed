//! The pages and drawings of `docs/bench`.

use anyhow::{Context, Result};
use repot_harness::place;
use std::path::PathBuf;

/// The path of a page or drawing.
pub(crate) fn path(name: &str) -> Result<PathBuf> {
    let folder = place::checkout().join("docs/bench");
    std::fs::create_dir_all(&folder).context("cannot make docs/bench")?;
    Ok(folder.join(name))
}

/// Writes a page and prints its path.
pub(crate) fn write(name: &str, text: &str) -> Result<()> {
    std::fs::write(path(name)?, text).with_context(|| format!("cannot write docs/bench/{name}"))?;
    println!("written: docs/bench/{name}");
    Ok(())
}
