//! QEMU for an architecture: the installed one, or a newer one from Debian's backports, which is not
//! installed.

use crate::arch::Arch;
use crate::command::{read, run};
use crate::suite::{Kind, Suite};
use crate::{debian, place};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first version that boots a kernel for LoongArch without firmware.
const FOR_LOONGARCH: u32 = 10;

/// Gets QEMU, if missing.
///
/// # Errors
/// If it cannot be installed or downloaded.
pub fn need(arch: Arch) -> Result<()> {
    program(arch).map(drop)
}

/// The command that runs it.
pub(crate) fn program(arch: Arch) -> Result<Command> {
    let (name, package) = arch.platform().qemu;
    // With the libraries that the newer one needs as well.
    debian::need(&[(name, package)])?;
    if arch != Arch::Loongarch64 || version(name)? >= FOR_LOONGARCH {
        return Ok(Command::new(name));
    }
    let folder = backport(package)?;
    let mut command = Command::new(folder.join("usr/bin").join(name));
    command.arg("-L").arg(folder.join("usr/share/qemu"));
    Ok(command)
}

/// The first number of a version.
fn version(program: &str) -> Result<u32> {
    let line = read(Command::new(program).arg("--version"))?;
    let number = line.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let number = number.and_then(|version| version.split('.').next()?.parse().ok());
    number.with_context(|| format!("{program} --version prints no version: {line}"))
}

/// The unpacked package, downloaded if missing.
fn backport(package: &str) -> Result<PathBuf> {
    let _lock = place::lock("qemu")?;
    let kept = place::kept("qemu")?.join(package);
    if !kept.exists() {
        debian::need(&[debian::APT, debian::DPKG_DEB])?;
        let work = place::fresh(&format!("qemu/unpack-{package}"))?;
        let suite = Suite::open("bookworm-backports", Kind::Binary, Arch::X86_64)?;
        println!("downloading {package} ({})", suite.name());
        run(suite.apt("apt-get").current_dir(&work).args(["-qq", "download", package]))?;
        let archive = std::fs::read_dir(&work)?.next().context("no package downloaded")??.path();
        unpack(&archive, &work.join("tree"))?;
        std::fs::rename(work.join("tree"), &kept).context("the package of QEMU")?;
        std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    Ok(kept)
}

fn unpack(archive: &Path, to: &Path) -> Result<()> {
    run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(to))
}
