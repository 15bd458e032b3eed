//! Stock Debian kernels, downloaded once and kept below `target/kernels`. Nothing is installed.
//!
//! They come from other suites of the mirror that this machine's apt uses. The "cloud" flavor boots in QEMU
//! and is the smallest.

use crate::command::{read, run};
use crate::suite::{Kind, Suite};
use crate::{debian, place};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each kernel series and the suites that have it. The newest kernel of all these suites is used.
const SERIES: [(&str, &[&str]); 4] = [
    ("5.10", &["bullseye"]),
    ("6.1", &["bookworm"]),
    ("6.12", &["trixie", "bookworm-backports"]),
    ("7", &["trixie-backports", "sid"]),
];

/// A downloaded kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Such as "6.12".
    pub series: String,
    /// The file that QEMU boots.
    pub image: PathBuf,
}

/// The series that [`kernel`] can download.
#[must_use]
pub fn series() -> Vec<&'static str> {
    SERIES.iter().map(|(name, _)| *name).collect()
}

/// The programs that download a kernel; none if it is already here.
///
/// # Errors
/// If `target/kernels` cannot be created.
pub fn tools(series: &str) -> Result<Vec<debian::Tool>> {
    let present = place::kept("kernels")?.join(series).join("vmlinuz").exists();
    Ok(if present { Vec::new() } else { vec![debian::APT, debian::DPKG_DEB] })
}

/// The newest kernel of a series, downloaded if missing.
///
/// # Errors
/// If the series is unknown or the kernel cannot be downloaded.
pub fn kernel(series: &str) -> Result<Kernel> {
    let Some((_, suites)) = SERIES.iter().find(|(name, _)| *name == series) else {
        bail!("unknown kernel series {series}; known: {}", self::series().join(", "));
    };
    let folder = place::kept("kernels")?.join(series);
    // Several boots may need the same kernel at once.
    let _lock = place::lock("kernels")?;
    let kernel = Kernel { series: series.to_owned(), image: folder.join("vmlinuz") };
    if !kernel.image.exists() {
        debian::need(&tools(series)?)?;
        fetch(series, suites, &folder).with_context(|| format!("cannot download a kernel {series}"))?;
    }
    Ok(kernel)
}

/// Modules of the kernel of a series.
#[derive(Debug, Clone)]
pub struct Modules {
    /// `uname -r` of their kernel.
    pub release: String,
    /// Each as `NAME.ko`, not compressed.
    pub files: Vec<PathBuf>,
}

/// The modules `names` of the kernel of a series, downloaded if missing.
///
/// # Errors
/// If they cannot be downloaded.
pub fn modules(series: &str, names: &[String]) -> Result<Modules> {
    kernel(series)?;
    let folder = place::kept("kernels")?.join(series);
    let kept = folder.join("modules");
    let _lock = place::lock("kernels")?;
    let files: Vec<PathBuf> = names.iter().map(|name| kept.join(format!("{name}.ko"))).collect();
    if !files.iter().all(|file| file.exists()) {
        debian::need(&[debian::APT, debian::DPKG_DEB, ("xz", "xz-utils")])?;
        let package = std::fs::read_to_string(folder.join("package"))?;
        fetch_modules(series, package.trim_end(), names, &kept)
            .with_context(|| format!("cannot download modules for the kernel {series}"))?;
    }
    let release = std::fs::read_to_string(kept.join("release"))?.trim_end().to_owned();
    Ok(Modules { release, files })
}

/// The modules are in the package of the kernel; from 7.0 on in one of their own.
fn fetch_modules(series: &str, package: &str, names: &[String], kept: &Path) -> Result<()> {
    let version = package.splitn(3, '-').nth(2).context("a kernel package has a version")?;
    let suites = SERIES.iter().find(|(name, _)| *name == series).map_or(&[][..], |(_, suites)| suites);
    let work = place::fresh(&format!("kernels/unpack-modules-{series}"))?;
    let mut failures = Vec::new();
    for suite in suites {
        let suite = Suite::open(suite, Kind::Binary)?;
        for package in [format!("linux-modules-{version}"), package.to_owned()] {
            match read(suite.apt("apt-get").current_dir(&work).args(["-qq", "download", &package])) {
                Err(error) => failures.push(format!("{package}: {error:#}")),
                Ok(_) => return unpack_modules(&work, names, kept),
            }
        }
    }
    bail!("{}", failures.join("; "))
}

fn unpack_modules(work: &Path, names: &[String], kept: &Path) -> Result<()> {
    let archive = only(work, |name| name.ends_with(".deb"))?;
    let tree = work.join("tree");
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree))?;
    std::fs::create_dir_all(kept)?;
    for name in names {
        let wanted = format!("{name}.ko");
        let mut found = only(&tree, |file| file.strip_suffix(".xz").unwrap_or(file) == wanted)?;
        if found.extension().is_some_and(|extension| extension == "xz") {
            run(Command::new("xz").arg("-d").arg(&found))?;
            found.set_extension("");
        }
        std::fs::rename(&found, kept.join(wanted))?;
        let mut folders = found.components().map(|part| part.as_os_str());
        folders.find(|part| *part == "modules");
        let release = folders.next().context("modules are in the folder of a release")?;
        std::fs::write(kept.join("release"), release.as_encoded_bytes())?;
    }
    std::fs::remove_dir_all(work).with_context(|| format!("cannot remove {}", work.display()))
}

fn fetch(series: &str, suites: &[&str], folder: &Path) -> Result<()> {
    let mut failures = Vec::new();
    let mut best: Option<(Version, String, Suite)> = None;
    for suite in suites {
        let found = Suite::open(suite, Kind::Binary).and_then(|suite| Ok((newest(&suite, series)?, suite)));
        match found {
            Ok(((version, package), suite)) if best.as_ref().is_none_or(|(other, ..)| version > *other) => {
                best = Some((version, package, suite));
            }
            Ok(_) => {}
            Err(error) => failures.push(format!("{suite}: {error:#}")),
        }
    }
    let (_, package, suite) = best.with_context(|| failures.join("; "))?;
    println!("downloading the kernel {package} ({})", suite.name());
    let work = place::fresh(&format!("kernels/unpack-{series}"))?;
    run(suite.apt("apt-get").current_dir(&work).args(["-qq", "download", &package]))?;
    let archive = only(&work, |name| name.ends_with(".deb"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(work.join("tree")))?;
    let image = only(&work, |name| name.starts_with("vmlinuz"))?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if let Ok(config) = only(&work, |name| name.starts_with("config-")) {
        std::fs::rename(config, folder.join("config"))?;
    }
    std::fs::write(folder.join("package"), format!("{package}\n"))?;
    // Last: a directory with an image in it is complete.
    std::fs::rename(&image, folder.join("vmlinuz"))
        .with_context(|| format!("cannot keep {}", image.display()))?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// The newest package of the series that has a kernel image: from 7.0 on it is called `linux-binary-…`.
fn newest(suite: &Suite, series: &str) -> Result<(Version, String)> {
    let names = read(suite.apt("apt-cache").arg("pkgnames").arg("linux-"))?;
    let rank = |name: &str| {
        let (kind, rest) = name.strip_prefix("linux-")?.split_once('-')?;
        let version = rest.strip_suffix("-cloud-amd64")?;
        let fits = version == series || version.starts_with(&format!("{series}."));
        let image = matches!(kind, "image" | "binary");
        (fits && image).then(|| (version_of(version, kind), name.to_owned()))
    };
    names
        .lines()
        .filter_map(rank)
        .max()
        .with_context(|| format!("the suite {} has no cloud kernel {series}", suite.name()))
}

/// The numbers of a version, then whether the package is of the kind that has the image since 7.0.
type Version = (Vec<u32>, bool);

fn version_of(version: &str, kind: &str) -> Version {
    let numbers =
        version.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    (numbers.collect(), kind == "binary")
}

/// The first file below `folder` whose name fits.
fn only(folder: &Path, fits: impl Fn(&str) -> bool + Copy) -> Result<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let item = item?;
            if item.file_type()?.is_dir() {
                folders.push(item.path());
            } else if item.file_name().to_str().is_some_and(fits) {
                return Ok(item.path());
            }
        }
    }
    bail!("the expected file is missing in {}", folder.display())
}

#[cfg(test)]
mod tests {
    use super::version_of;

    #[test]
    fn newer_versions_come_later_and_the_package_with_the_image_wins() {
        assert!(version_of("6.12.117+deb13", "image") > version_of("6.12.95+deb13", "image"));
        assert!(version_of("7.10.1+deb14", "image") > version_of("7.9.1+deb14", "binary"));
        assert!(version_of("7.3.4+deb13", "binary") > version_of("7.3.4+deb13", "image"));
    }
}
