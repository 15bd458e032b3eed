//! Paths of the checkout and of what is built or kept between runs, all below `target/`.

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The top directory of the checkout: the one with `Cargo.lock`.
#[must_use]
pub fn checkout() -> PathBuf {
    // Cargo sets the variable for the program that it runs. The path of the build is for programs run by
    // hand.
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let top = package.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    top.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// `target/NAME` of the checkout, created if missing.
///
/// # Errors
/// If the directory cannot be created.
pub fn kept(name: &str) -> Result<PathBuf> {
    let path = checkout().join("target").join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// `target/NAME`, emptied.
///
/// # Errors
/// If the old directory cannot be removed or the new one cannot be created.
pub fn fresh(name: &str) -> Result<PathBuf> {
    let path = checkout().join("target").join(name);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => kept(name),
    }
}

/// A path as messages show it: relative to the checkout.
#[must_use]
pub fn short(path: &Path) -> String {
    path.strip_prefix(checkout()).unwrap_or(path).display().to_string()
}

/// Where cargo puts what it builds.
#[must_use]
pub fn built() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from)
}

/// Waits for a lock that all programs of this checkout share, and holds it as long as the result lives.
///
/// # Errors
/// If the lock file cannot be created or locked.
pub fn lock(name: &str) -> Result<File> {
    let cannot = || format!("cannot lock target/lock/{name}");
    let file = File::create(kept("lock")?.join(name)).with_context(cannot)?;
    flock(&file, FlockOperation::LockExclusive).with_context(cannot)?;
    Ok(file)
}
