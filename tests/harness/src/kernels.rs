//! Stock Debian kernels, downloaded once and kept below `target/kernels`. Nothing is installed.
//!
//! They come from other suites of the mirror that this machine's apt uses. The "cloud" flavor boots in QEMU
//! and is the smallest.

use crate::command::{read, run};
use crate::suite::{Kind, Suite};
use crate::{debian, place};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
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

/// The folder of a kernel's modules, indexed by depmod(8), downloaded if missing.
///
/// # Errors
/// If the series is unknown or the modules cannot be downloaded.
pub fn modules(series: &str) -> Result<PathBuf> {
    let kernel = kernel(series)?;
    let folder = place::kept("kernels")?.join(series);
    let _lock = place::lock("kernels")?;
    let package = std::fs::read_to_string(folder.join("package"))?;
    let release = package.trim().split_once('-').and_then(|(_, rest)| rest.split_once('-'));
    let (_, release) = release.with_context(|| format!("the package {package} names no release"))?;
    let kept = folder.join("lib/modules").join(release);
    if !kept.exists() {
        debian::need(&[debian::APT, debian::DPKG_DEB, ("depmod", "kmod")])?;
        let known = SERIES.iter().find(|(name, _)| *name == kernel.series);
        let suites = known.map_or(&[][..], |(_, suites)| suites);
        fetch_modules(package.trim(), release, suites, &folder)
            .with_context(|| format!("cannot download the modules of {release}"))?;
    }
    Ok(kept)
}

/// Modules of the kernel of a series.
#[derive(Debug, Clone)]
pub struct Drivers {
    /// `uname -r` of their kernel.
    pub release: String,
    /// Each as `NAME.ko`, not compressed.
    pub files: Vec<PathBuf>,
}

/// The modules `names` of the kernel of a series.
///
/// # Errors
/// If they cannot be downloaded.
pub fn drivers(series: &str, names: &[String]) -> Result<Drivers> {
    let folder = modules(series)?;
    let release = folder.file_name().context("modules are in the folder of a release")?;
    let release = release.to_string_lossy().into_owned();
    let kept = place::kept("kernels")?.join(series).join("drivers");
    let _lock = place::lock("kernels")?;
    std::fs::create_dir_all(&kept)?;
    let mut files = Vec::new();
    for name in names {
        let wanted = format!("{name}.ko");
        let file = kept.join(&wanted);
        if !file.exists() {
            let found = only(&folder, |file| file.strip_suffix(".xz").unwrap_or(file) == wanted)?;
            if found.extension().is_some_and(|extension| extension == "xz") {
                // Under another name until it is whole.
                let part = file.with_extension("part");
                let out = File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
                run(Command::new("xz").arg("-dc").arg(&found).stdout(out))?;
                std::fs::rename(&part, &file)?;
            } else {
                std::fs::copy(&found, &file).with_context(|| format!("cannot copy {}", found.display()))?;
            }
        }
        files.push(file);
    }
    Ok(Drivers { release, files })
}

/// Up to 6.x the modules are in the package of the kernel; from 7.0 on they have their own.
fn fetch_modules(package: &str, release: &str, suites: &[&str], folder: &Path) -> Result<()> {
    let work = place::fresh(&format!("kernels/unpack-modules-{release}"))?;
    let name = package.replace("linux-binary-", "linux-modules-");
    let download = |suite: &&str| -> Result<()> {
        let suite = Suite::open(suite, Kind::Binary)?;
        println!("downloading {name} ({})", suite.name());
        run(suite.apt("apt-get").current_dir(&work).args(["-qq", "download", &name]))
    };
    ensure!(suites.iter().any(|suite| download(suite).is_ok()), "no suite has the package {name}");
    let archive = only(&work, |name| name.ends_with(".deb"))?;
    let tree = work.join("tree");
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&tree))?;
    // Before 6.12 there is no /usr in the path.
    let base = if tree.join("usr/lib/modules").is_dir() { tree.join("usr") } else { tree };
    read(Command::new("depmod").arg("-b").arg(&base).arg(release))?;
    std::fs::create_dir_all(folder.join("lib/modules"))?;
    std::fs::rename(base.join("lib/modules").join(release), folder.join("lib/modules").join(release))?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
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
