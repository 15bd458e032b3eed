//! `cargo xtask release`: everything that is attached to a release, in `target/releases/VERSION`.
//!
//! Equal sources and compilers make equal bytes: entries are sorted, belong to root and have one time, that
//! of the last commit or `SOURCE_DATE_EPOCH`.

mod archive;
mod date;
mod deb;
mod licenses;
mod linked;
mod oci;
mod sbom;
mod tried;

use crate::dist::{self, Targets};
use anyhow::{Context, Result, ensure};
use archive::Files;
use repot_harness::build::{self, Arch};
use repot_harness::command::read;
use repot_harness::place;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each part of a release needs to know.
struct Release {
    folder: PathBuf,
    version: &'static str,
    /// The time of every entry, in seconds since 1970.
    time: u64,
    /// The licenses that are not of a package, by name.
    own: Files,
}

/// Builds the release for these architectures. Those that cannot be built are listed at the end, and are an
/// error.
pub(crate) fn release(targets: &Targets) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let release = Release {
        folder: place::fresh(&format!("releases/{version}"))?,
        version,
        time: time()?,
        own: own_licenses()?,
    };
    let built = dist::build(targets, true)?;
    let packages = linked::packages()?;
    for &arch in &built.inits {
        release.inits(arch, &packages)?;
    }
    if !built.tools.is_empty() {
        let pages = release.pages(&built.tools)?;
        for &arch in &built.tools {
            tried::tool(arch, version, &built.inits)?;
            release.tool(arch, &packages, &pages)?;
        }
    }
    release.write(
        &format!("repot-init-v{version}.oci.tar"),
        &oci::layout(&built.inits, version, release.time)?,
    )?;
    release.checksums()?;
    ensure!(built.failures.is_empty(), "not in the release:\n  {}", built.failures.join("\n  "));
    Ok(())
}

impl Release {
    /// The archive and the Debian package of the inits and the runner of one architecture.
    fn inits(&self, arch: Arch, packages: &linked::Packages) -> Result<()> {
        let (triple, _) = build::triple(arch)?;
        let linked = packages.of(&["repot-init", "repot-run"], &["payload"], &triple)?;
        let mut files = Files::default();
        let programs = place::kept("dist")?.join(arch.name());
        for name in ["init", "init-payload", "run"] {
            files.program(name, read_file(&programs.join(name))?);
        }
        for page in ["repot-init.8", "repot.conf.5"] {
            files.file(&format!("man/{page}"), read_file(&place::checkout().join("docs/man").join(page))?);
        }
        let licenses = licenses::of(&linked, &triple)?;
        self.documents(&mut files, &licenses, arch, &["repot-init", "repot-run"], &linked)?;
        self.archive("repot-init", &triple, &files)?;
        if matches!(arch, Arch::X86_64 | Arch::Aarch64) {
            let package = deb::inits(&files, &licenses.merge(&self.own), arch.debian(), self)?;
            self.write(&package.file, &package.bytes)?;
        }
        Ok(())
    }

    /// The same of the tool.
    fn tool(&self, arch: Arch, packages: &linked::Packages, pages: &Files) -> Result<()> {
        let (triple, _) = build::triple(arch)?;
        // It has the inits inside.
        let linked = packages.of(&["repot-cli", "repot-init", "repot-run"], &["payload"], &triple)?;
        let mut files = pages.clone();
        files.program("repot", read_file(&place::kept("dist")?.join(arch.name()).join("repot"))?);
        let licenses = licenses::of(&linked, &triple)?;
        self.documents(&mut files, &licenses, arch, &["repot-cli", "repot-init", "repot-run"], &linked)?;
        self.archive("repot-cli", &triple, &files)?;
        let package = deb::tool(&files, &licenses.merge(&self.own), arch.debian(), self)?;
        self.write(&package.file, &package.bytes)
    }

    /// What every archive has besides its programs.
    fn documents(
        &self,
        files: &mut Files,
        licenses: &Files,
        arch: Arch,
        of: &[&str],
        linked: &[linked::Package],
    ) -> Result<()> {
        for name in ["README.md", "CHANGELOG.md"] {
            files.file(name, read_file(&place::checkout().join(name))?);
        }
        for (name, bytes) in self.own.iter() {
            files.file(name, bytes.to_vec());
        }
        for (name, bytes) in licenses.iter() {
            files.file(&format!("licenses/{name}"), bytes.to_vec());
        }
        let bill = sbom::document(of[0], self.version, linked, &build::libraries(arch)?, self.time)?;
        files.file(&format!("{}.cdx.json", of[0]), bill);
        Ok(())
    }

    /// Completions and manual pages, as the tool of this machine prints them.
    fn pages(&self, tools: &[Arch]) -> Result<Files> {
        let here = tools.iter().find(|arch| arch.name() == std::env::consts::ARCH);
        let here = here.context("the tool of this machine prints its manual pages: build it too")?;
        let tool = place::kept("dist")?.join(here.name()).join("repot");
        let print = |words: &[&str]| read(Command::new(&tool).args(words)).map(|text| text + "\n");
        let mut files = Files::default();
        for (shell, name) in [("bash", "repot.bash"), ("fish", "repot.fish"), ("zsh", "_repot")] {
            files.file(&format!("completions/{name}"), print(&["completions", shell])?.into_bytes());
        }
        let overview = print(&["man"])?;
        // The overview refers to the page of each command.
        let commands: Vec<&str> = overview
            .split("repot\\-")
            .skip(1)
            .filter_map(|rest| rest.split('(').next())
            .filter(|name| name.chars().all(|letter| letter.is_ascii_lowercase()))
            .collect();
        ensure!(!commands.is_empty(), "the manual page of the tool names no command");
        for command in commands {
            let page = print(&["man", command])?;
            files.file(&format!("man/repot-{command}.1"), page.into_bytes());
        }
        files.file("man/repot.1", overview.into_bytes());
        Ok(files)
    }

    /// `NAME-TARGET-vVERSION.tgz` with a folder of that name in it: where cargo-binstall looks by default.
    fn archive(&self, name: &str, triple: &str, files: &Files) -> Result<()> {
        let name = stem(name, triple, self.version);
        self.write(&format!("{name}.tgz"), &archive::tar_gz(files, &name, self.time)?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}: {} bytes", place::short(&path), bytes.len());
        Ok(())
    }

    /// `SHA256SUMS`, for `sha256sum --check`.
    fn checksums(&self) -> Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            names.push(entry?.file_name().into_string().ok().context("a name that is not text")?);
        }
        names.sort();
        let mut text = String::new();
        for name in names {
            text += &format!("{}  {name}\n", archive::sha256(&read_file(&self.folder.join(&name))?));
        }
        self.write("SHA256SUMS", text.as_bytes())
    }
}

/// What an archive and the folder in it are called.
fn stem(name: &str, triple: &str, version: &str) -> String {
    format!("{name}-{triple}-v{version}")
}

fn own_licenses() -> Result<Files> {
    let mut files = Files::default();
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        files.file(name, read_file(&place::checkout().join(name))?);
    }
    Ok(files)
}

/// The time of the release.
fn time() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            read(Command::new("git").current_dir(place::checkout()).args(["log", "-1", "--format=%ct"]))?
        }
    };
    text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH or the last commit: not a time: {text}"))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use repot_harness::command::cargo;

    /// The templates of `[package.metadata.binstall]`, filled in as cargo-binstall does.
    #[test]
    fn cargo_binstall_finds_the_archive_and_the_tool_in_it() {
        let text = read(cargo().args(["metadata", "--format-version=1", "--no-deps"])).unwrap();
        let metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == "repot-cli").unwrap();
        let (repository, version) =
            (package["repository"].as_str().unwrap(), package["version"].as_str().unwrap());
        let target = "aarch64-unknown-linux-musl";
        let render = |key: &str| {
            let template = package["metadata"]["binstall"][key].as_str().unwrap().to_owned();
            [
                ("{ repo }", repository),
                ("{ name }", "repot-cli"),
                ("{ version }", version),
                ("{ target }", target),
                ("{ bin }", "repot"),
                ("{ binary-ext }", ""),
            ]
            .iter()
            .fold(template, |text, (name, value)| text.replace(name, value))
        };
        let stem = stem("repot-cli", target, version);
        assert_eq!(render("pkg-url"), format!("{repository}/releases/download/v{version}/{stem}.tgz"));
        assert_eq!(render("pkg-fmt"), "tgz");
        let mut files = Files::default();
        files.program("repot", b"program".to_vec());
        let packed = archive::tar_gz(&files, &stem, 0).unwrap();
        let mut unpacked = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let paths: Vec<String> = unpacked
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert!(paths.contains(&render("bin-dir")), "{paths:?}");
    }
}
