//! Where things are: the checkout, what is built, what is kept between runs. All of it under `target/`.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The top of the checkout.
pub(crate) fn checkout() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// `target/NAME` of the checkout, made when missing.
pub(crate) fn kept(name: &str) -> Result<PathBuf> {
    let path = checkout().join("target").join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// `target/NAME`, made anew and empty.
pub(crate) fn fresh(name: &str) -> Result<PathBuf> {
    let path = checkout().join("target").join(name);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => kept(name),
    }
}

/// Where cargo puts what it builds.
pub(crate) fn built() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from)
}
