//! Stock Debian kernels, downloaded once and kept below `target/kernels`. Nothing is installed.
//!
//! They come from other suites and architectures of the mirror that this machine's apt uses.

use crate::arch::Arch;
use crate::command::{read, run};
use crate::suite::{Kind, Suite};
use crate::{debian, place};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

/// A kernel of Debian. The newest one of all its suites is used.
struct Flavor {
    arch: Arch,
    /// The series, and behind a dash what else distinguishes it.
    name: &'static str,
    suites: &'static [&'static str],
    /// The end of the name of its package.
    flavor: &'static str,
}

const fn of(arch: Arch, name: &'static str, suites: &'static [&'static str], flavor: &'static str) -> Flavor {
    Flavor { arch, name, suites, flavor }
}

/// "cloud" kernels boot in QEMU and are the smallest.
const KERNELS: [Flavor; 13] = [
    of(Arch::X86_64, "5.10", &["bullseye"], "cloud-amd64"),
    of(Arch::X86_64, "6.1", &["bookworm"], "cloud-amd64"),
    of(Arch::X86_64, "6.12", &["trixie", "bookworm-backports"], "cloud-amd64"),
    of(Arch::X86_64, "7", &["trixie-backports", "sid"], "cloud-amd64"),
    of(Arch::Aarch64, "6.12", &["trixie"], "cloud-arm64"),
    of(Arch::Aarch64, "6.12-16k", &["trixie"], "arm64-16k"),
    // Debian builds no kernel for it any more.
    of(Arch::I686, "6.1", &["bookworm"], "686-pae"),
    of(Arch::Armv7, "6.12", &["trixie"], "armmp"),
    of(Arch::Riscv64, "6.12", &["trixie"], "riscv64"),
    of(Arch::Ppc64le, "6.12", &["trixie"], "powerpc64le"),
    of(Arch::Ppc64le, "6.12-64k", &["trixie"], "powerpc64le-64k"),
    of(Arch::S390x, "6.12", &["trixie"], "s390x"),
    of(Arch::Loongarch64, "7", &["sid"], "loong64"),
];

/// A downloaded kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Such as "6.12".
    pub series: String,
    /// The architecture that it is for.
    pub arch: Arch,
    /// The file that QEMU boots.
    pub image: PathBuf,
}

/// The series of x86_64 that [`kernel`] can download.
#[must_use]
pub fn series() -> Vec<&'static str> {
    series_of(Arch::X86_64)
}

/// The series of an architecture that [`kernel_of`] can download.
#[must_use]
pub fn series_of(arch: Arch) -> Vec<&'static str> {
    KERNELS.iter().filter(|flavor| flavor.arch == arch).map(|flavor| flavor.name).collect()
}

/// The folder below `target` of one kernel. Those of x86_64 are not in a folder of their architecture.
fn folder(arch: Arch, series: &str) -> Result<PathBuf> {
    let kept = place::kept("kernels")?;
    Ok(if arch == Arch::X86_64 { kept.join(series) } else { kept.join(arch.name()).join(series) })
}

/// The programs that download a kernel; none if it is already here.
///
/// # Errors
/// If `target/kernels` cannot be created.
pub fn tools(series: &str) -> Result<Vec<debian::Tool>> {
    tools_of(Arch::X86_64, series)
}

fn tools_of(arch: Arch, series: &str) -> Result<Vec<debian::Tool>> {
    let present = folder(arch, series)?.join("vmlinuz").exists();
    Ok(if present { Vec::new() } else { vec![debian::APT, debian::DPKG_DEB] })
}

/// The newest kernel of a series for x86_64, downloaded if missing.
///
/// # Errors
/// If the series is unknown or the kernel cannot be downloaded.
pub fn kernel(series: &str) -> Result<Kernel> {
    kernel_of(Arch::X86_64, series)
}

/// The newest kernel of a series for an architecture, downloaded if missing.
///
/// # Errors
/// If the series is unknown or the kernel cannot be downloaded.
pub fn kernel_of(arch: Arch, series: &str) -> Result<Kernel> {
    let Some(flavor) = KERNELS.iter().find(|flavor| flavor.arch == arch && flavor.name == series) else {
        let (name, known) = (arch.name(), series_of(arch).join(", "));
        bail!("unknown kernel series {series} for {name}; known: {known}");
    };
    let folder = folder(arch, series)?;
    // Several boots may need the same kernel at once.
    let _lock = place::lock("kernels")?;
    let kernel = Kernel { series: series.to_owned(), arch, image: folder.join("vmlinuz") };
    if !kernel.image.exists() {
        debian::need(&tools_of(arch, series)?)?;
        fetch(flavor, &folder)
            .with_context(|| format!("cannot download a kernel {series} for {}", arch.name()))?;
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
        let known = |flavor: &&Flavor| flavor.arch == kernel.arch && flavor.name == kernel.series;
        let suites = KERNELS.iter().find(known).map_or(&[][..], |flavor| flavor.suites);
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
        let suite = Suite::open(suite, Kind::Binary, Arch::X86_64)?;
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

fn fetch(flavor: &Flavor, folder: &Path) -> Result<()> {
    let (mut failures, mut found) = (Vec::new(), Vec::new());
    for name in flavor.suites {
        match Suite::open(name, Kind::Binary, flavor.arch).and_then(|suite| packages(suite, flavor)) {
            Ok(packages) => found.extend(packages),
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    found.sort_by(|(one, ..), (other, ..)| other.cmp(one));
    let work = place::fresh(&format!("kernels/unpack-{}-{}", flavor.arch.name(), flavor.name))?;
    // A mirror can lack the newest package that its lists name.
    let package = found.into_iter().find_map(|(_, package, suite)| {
        println!("downloading the kernel {package} ({})", suite.name());
        let download = run(suite.apt("apt-get").current_dir(&work).args(["-qq", "download", &package]));
        download.map_err(|error| failures.push(format!("{error:#}"))).is_ok().then_some(package)
    });
    let package = package.with_context(|| failures.join("; "))?;
    let archive = only(&work, |name| name.ends_with(".deb"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(work.join("tree")))?;
    let image = only(&work, |name| name.starts_with("vmlinuz") || name.starts_with("vmlinux"))?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if let Ok(config) = only(&work, |name| name.starts_with("config-")) {
        std::fs::rename(config, folder.join("config"))?;
    }
    std::fs::write(folder.join("package"), format!("{package}\n"))?;
    unpack(&image)?;
    // Last: a directory with an image in it is complete.
    std::fs::rename(&image, folder.join("vmlinuz"))
        .with_context(|| format!("cannot keep {}", image.display()))?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// Takes a kernel out of the EFI program that decompresses it
/// (linux/drivers/firmware/efi/libstub/zboot-header.S), which QEMU knows for gzip only. Other kernels stay as
/// they are.
fn unpack(image: &Path) -> Result<()> {
    let bytes = std::fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let number = |at: usize| {
        let number = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(number)).ok()
    };
    let (Some(offset), Some(length)) = (number(8), number(12)) else { return Ok(()) };
    if !bytes[4..].starts_with(b"zimg") {
        return Ok(());
    }
    debian::need(&[("zstd", "zstd")])?;
    let packed = image.with_extension("zst");
    let end = offset.checked_add(length).context("the length of the kernel")?;
    std::fs::write(&packed, bytes.get(offset..end).context("the kernel is truncated")?)?;
    read(Command::new("zstd").args(["-q", "-d", "-f", "-o"]).arg(image).arg(&packed)).map(drop)
}

/// The packages of a suite that have a kernel image: from 7.0 on they are called `linux-binary-…`.
fn packages(suite: Suite, flavor: &Flavor) -> Result<Vec<(Version, String, Rc<Suite>)>> {
    let names = read(suite.apt("apt-cache").arg("pkgnames").arg("linux-"))?;
    let suite = Rc::new(suite);
    let found: Vec<_> = names
        .lines()
        .filter_map(|name| rank(flavor, name).map(|(version, name)| (version, name, suite.clone())))
        .collect();
    ensure!(
        !found.is_empty(),
        "the suite {} has no kernel {} ({})",
        suite.name(),
        flavor.name,
        flavor.flavor
    );
    Ok(found)
}

/// The version of a package, if it has a kernel of this flavor.
fn rank(flavor: &Flavor, package: &str) -> Option<(Version, String)> {
    let (kind, rest) = package.strip_prefix("linux-")?.split_once('-')?;
    let version = rest.strip_suffix(flavor.flavor)?.strip_suffix('-')?;
    // Otherwise it is of a flavor whose name ends alike.
    let numbers = version.split('-').all(|part| part.starts_with(|first: char| first.is_ascii_digit()));
    let series = flavor.name.split('-').next()?;
    let fits = version == series || version.starts_with(&format!("{series}."));
    let image = matches!(kind, "image" | "binary");
    (fits && numbers && image).then(|| (version_of(version, kind), package.to_owned()))
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
    use super::{KERNELS, rank, version_of};

    #[test]
    fn newer_versions_come_later_and_the_package_with_the_image_wins() {
        assert!(version_of("6.12.117+deb13", "image") > version_of("6.12.95+deb13", "image"));
        assert!(version_of("7.10.1+deb14", "image") > version_of("7.9.1+deb14", "binary"));
        assert!(version_of("7.3.4+deb13", "binary") > version_of("7.3.4+deb13", "image"));
    }

    #[test]
    fn a_flavor_takes_its_own_packages_alone() {
        let takes = |name: &str, flavor: &str, package: &str| {
            let found = KERNELS.iter().find(|one| one.name == name && one.flavor == flavor);
            rank(found.expect("a kernel"), package).is_some()
        };
        assert!(takes("6.12-16k", "arm64-16k", "linux-image-6.12.57+deb13-arm64-16k"));
        assert!(takes("6.1", "686-pae", "linux-image-6.1.0-41-686-pae"));
        assert!(takes("6.12", "armmp", "linux-image-6.12.57+deb13-armmp"));
        assert!(!takes("6.12", "s390x", "linux-image-6.12.57+deb13-rt-s390x"));
        assert!(!takes("6.12", "s390x", "linux-headers-6.12.57+deb13-s390x"));
        assert!(!takes("6.12", "cloud-arm64", "linux-image-6.12.57+deb13-cloud-arm64-unsigned"));
        assert!(!takes("6.1", "686-pae", "linux-image-6.12.1-1-686-pae"));
    }
}
