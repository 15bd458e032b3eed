//! Suites of the mirror that this machine's apt uses, with package lists in directories of our own: nothing
//! that the machine's apt knows is changed.

use crate::arch::Arch;
use crate::command::read;
use crate::place;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Packages.
    Binary,
    /// Their sources.
    Source,
}

/// One suite of the mirror, with package lists in our own directory.
#[derive(Debug)]
pub(crate) struct Suite {
    name: String,
    kind: Kind,
    arch: Arch,
    folder: PathBuf,
}

impl Suite {
    pub(crate) fn open(name: &str, kind: Kind, arch: Arch) -> Result<Suite> {
        let folder = place::kept(&match (kind, arch) {
            (Kind::Binary, Arch::X86_64) => format!("kernels/apt/{name}"),
            (Kind::Binary, _) => format!("kernels/apt/{name}-{}", arch.debian()),
            (Kind::Source, _) => format!("sources/apt/{name}"),
        })?;
        for part in ["state/lists/partial", "cache/archives/partial", "etc"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        let suite = Suite { name: name.to_owned(), kind, arch, folder };
        let keys = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
        let signed = format!("signed-by={}", keys.display());
        if suite.update(&signed).is_err() {
            // The suite's key can be newer than this system. What tests use may be unsigned.
            println!("this system has no key for the suite {name}: using its package lists unverified");
            suite.update("trusted=yes")?;
        }
        Ok(suite)
    }

    fn update(&self, trust: &str) -> Result<()> {
        let sources = self.folder.join("etc/sources.list");
        let kind = match self.kind {
            Kind::Binary => "deb",
            Kind::Source => "deb-src",
        };
        std::fs::write(sources, format!("{kind} [{trust}] {} {} main\n", mirror()?, self.name))?;
        // Without this option, apt warns and uses old lists if a download fails.
        read(self.apt("apt-get").args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"])).map(drop)
    }

    /// A program of apt with these package lists.
    pub(crate) fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |part: &str| self.folder.join(part).display().to_string();
        for option in [
            format!("Dir::State={}", path("state")),
            format!("Dir::Cache={}", path("cache")),
            format!("Dir::Etc::SourceList={}", path("etc/sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::State::status=/dev/null".to_owned(),
            format!("APT::Architecture={}", self.arch.debian()),
            format!("APT::Architectures={}", self.arch.debian()),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
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
