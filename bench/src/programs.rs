//! The programs and archives of the benchmarks.

use anyhow::{Context, Result};
use repot_harness::build;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The program of `bench/guest`, built once per run.
pub(crate) fn guest() -> Result<PathBuf> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PROGRAM.get() {
        return Ok(path.clone());
    }
    let path = build::guest("bench-guest")?;
    Ok(PROGRAM.get_or_init(|| path).clone())
}

/// Packs a directory into an uncompressed archive that the kernel can unpack.
pub(crate) fn pack_plain(root: &Path, archive: &Path) -> Result<()> {
    let out = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    repot_cli::source::directory::pack(root, out)
        .with_context(|| format!("cannot pack {}", root.display()))?;
    Ok(())
}
