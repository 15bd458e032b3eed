//! Stock Debian kernels, downloaded once and kept below `target/kernels`. Nothing is installed.
//!
//! They come from the mirror that this machine's apt uses, from other suites, with package lists in a
//! directory of our own. The "cloud" flavor boots in QEMU and is the smallest.

use crate::command::{read, run};
use crate::{debian, place};
use anyhow::{Context, Result, bail, ensure};
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

/// Up to 6.x the modules are in the package of the kernel; from 7.0 on they have their own.
fn fetch_modules(package: &str, release: &str, suites: &[&str], folder: &Path) -> Result<()> {
    let work = place::fresh(&format!("kernels/unpack-modules-{release}"))?;
    let name = package.replace("linux-binary-", "linux-modules-");
    let download = |suite: &&str| -> Result<()> {
        let suite = Suite::open(suite)?;
        println!("downloading {name} ({})", suite.name);
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
        let found = Suite::open(suite).and_then(|suite| Ok((suite.newest(series)?, suite)));
        match found {
            Ok(((version, package), suite)) if best.as_ref().is_none_or(|(other, ..)| version > *other) => {
                best = Some((version, package, suite));
            }
            Ok(_) => {}
            Err(error) => failures.push(format!("{suite}: {error:#}")),
        }
    }
    let (_, package, suite) = best.with_context(|| failures.join("; "))?;
    println!("downloading the kernel {package} ({})", suite.name);
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

/// One suite of the mirror, with package lists in our own directory.
struct Suite {
    name: String,
    folder: PathBuf,
}

impl Suite {
    fn open(name: &str) -> Result<Suite> {
        let folder = place::kept(&format!("kernels/apt/{name}"))?;
        for part in ["state/lists/partial", "cache/archives/partial", "etc"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        let suite = Suite { name: name.to_owned(), folder };
        let keys = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
        let signed = format!("signed-by={}", keys.display());
        if suite.update(&signed).is_err() {
            // The suite's key can be newer than this system. A kernel for tests may be unsigned.
            println!("this system has no key for the suite {name}: using its package lists unverified");
            suite.update("trusted=yes")?;
        }
        Ok(suite)
    }

    fn update(&self, trust: &str) -> Result<()> {
        let sources = self.folder.join("etc/sources.list");
        std::fs::write(sources, format!("deb [{trust}] {} {} main\n", mirror()?, self.name))?;
        // Without this option, apt warns and uses old lists if a download fails.
        read(self.apt("apt-get").args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"])).map(drop)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |part: &str| self.folder.join(part).display().to_string();
        for option in [
            format!("Dir::State={}", path("state")),
            format!("Dir::Cache={}", path("cache")),
            format!("Dir::Etc::SourceList={}", path("etc/sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::State::status=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    /// The newest package of the series that has a kernel image: from 7.0 on it is called `linux-binary-…`.
    fn newest(&self, series: &str) -> Result<(Version, String)> {
        let names = read(self.apt("apt-cache").arg("pkgnames").arg("linux-"))?;
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
            .with_context(|| format!("the suite {} has no cloud kernel {series}", self.name))
    }
}

/// The numbers of a version, then whether the package is of the kind that has the image since 7.0.
type Version = (Vec<u32>, bool);

fn version_of(version: &str, kind: &str) -> Version {
    let numbers =
        version.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    (numbers.collect(), kind == "binary")
}

/// The mirror that this machine's apt uses.
///
/// # Errors
/// If apt has no Debian mirror.
pub fn mirror() -> Result<String> {
    let targets =
        read(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)", "Label: Debian"]))?;
    let first = targets.lines().next().map(str::to_owned);
    first.context("apt has no Debian mirror (see `apt-get indextargets`)")
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
