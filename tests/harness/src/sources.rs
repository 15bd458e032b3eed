//! Source packages of Debian, downloaded once and kept below `target/sources`. Nothing is installed.

use crate::arch::Arch;
use crate::command::run;
use crate::suite::{Kind, Suite};
use crate::{debian, place};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The suite that they come from.
const SUITE: &str = "trixie";

/// The directory of an unpacked source package.
///
/// # Errors
/// If it cannot be downloaded or unpacked.
pub fn unpacked(package: &str) -> Result<PathBuf> {
    let folder = place::kept("sources")?.join(package);
    let _lock = place::lock("sources")?;
    if !folder.exists() {
        fetch(package, &folder).with_context(|| format!("cannot download the source package {package}"))?;
    }
    Ok(folder)
}

fn fetch(package: &str, folder: &Path) -> Result<()> {
    debian::need(&[debian::APT, ("tar", "tar"), ("xz", "xz-utils")])?;
    let suite = Suite::open(SUITE, Kind::Source, Arch::X86_64)?;
    println!("downloading the source package {package} ({})", suite.name());
    let work = place::fresh(&format!("sources/unpack-{package}"))?;
    run(suite.apt("apt-get").current_dir(&work).args(["-qq", "source", "--download-only", package]))?;
    let tree = work.join("tree");
    std::fs::create_dir(&tree)?;
    for item in std::fs::read_dir(&work)? {
        let path = item?.path();
        // The patches of Debian are in an archive of their own, and not needed.
        if path.to_string_lossy().contains(".orig.tar.") && !path.to_string_lossy().ends_with(".asc") {
            run(Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(&tree))?;
        }
    }
    // Last: a directory that exists is complete.
    std::fs::rename(&tree, folder).with_context(|| format!("cannot keep {}", folder.display()))?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}
