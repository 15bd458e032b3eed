//! What holds of every folder of `packaging/` without a boot. `cargo xtask packaging` builds and boots them.

use anyhow::{Context, Result, ensure};
use repot_harness::command::{exists, read};
use repot_harness::place;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the tests share; it is for no project.
const SHARED: &str = "test";

fn top() -> PathBuf {
    place::checkout().join("packaging")
}

/// The folders for projects.
fn folders() -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for item in std::fs::read_dir(top())? {
        let path = item?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != SHARED) {
            folders.push(path);
        }
    }
    folders.sort();
    ensure!(folders.len() >= 10, "packaging/ has only {} folders", folders.len());
    Ok(folders)
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for item in std::fs::read_dir(folder)? {
        let path = item?.path();
        if path.is_dir() { files.extend(self::files(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

#[test]
fn every_folder_has_a_test_and_a_page_that_names_its_files() -> Result<()> {
    let index = text(&top().join("README.md"))?;
    for folder in folders()? {
        let name = folder.file_name().context("a name")?.to_string_lossy().into_owned();
        ensure!(index.contains(&format!("]({name}/README.md)")), "packaging/README.md has no link to {name}");
        ensure!(folder.join("test.sh").is_file(), "{name} has no test.sh");
        let page = text(&folder.join("README.md"))?;
        let command = format!("cargo xtask packaging {name}");
        ensure!(page.contains(&command), "{name}/README.md does not say: {command}");
        for file in files(&folder)? {
            let name = file.file_name().context("a name")?.to_string_lossy().into_owned();
            let known = ["README.md", "test.sh"].contains(&&*name) || page.contains(&name);
            ensure!(known, "{} is not in the README.md of its folder", file.display());
        }
    }
    Ok(())
}

#[test]
fn scripts_parse() -> Result<()> {
    let mut scripts = 0;
    for file in files(&top())? {
        // Some are parts of other scripts, and say so to the linter.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let first = text.lines().next().unwrap_or_default();
        let shell = match first {
            "#!/bin/bash" | "# shellcheck shell=bash" => "bash",
            "#!/bin/sh" | "# shellcheck shell=sh" => "sh",
            _ => continue,
        };
        read(Command::new(shell).arg("-n").arg(&file))?;
        if exists("shellcheck") {
            let words = ["--severity=warning", "--external-sources", "--source-path=SCRIPTDIR/../.."];
            read(Command::new("shellcheck").args(words).args(["--shell", shell]).arg(&file))?;
        }
        scripts += 1;
    }
    ensure!(scripts > 20, "only {scripts} scripts were found");
    Ok(())
}

#[test]
fn data_files_parse() -> Result<()> {
    for name in ["microvm/firecracker.json", "microvm/cloud-hypervisor.json"] {
        let _: serde_json::Value = serde_json::from_str(&text(&top().join(name))?).context(name)?;
    }
    Ok(())
}

/// A release changes the version in one place; whoever forgets the recipes finds out here.
#[test]
fn recipes_are_of_this_version() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let recipe = top().join(format!("yocto/recipes-core/repot-init/repot-init_{version}.bb"));
    ensure!(recipe.is_file(), "packaging/yocto has no recipe of {version}");
    let package = text(&top().join("buildroot/package/repot-init/repot-init.mk"))?;
    ensure!(package.contains(&format!("REPOT_INIT_VERSION = {version}\n")), "packaging/buildroot: {version}");
    let (hashes, recipe) =
        (text(&top().join("buildroot/package/repot-init/repot-init.hash"))?, text(&recipe)?);
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let path = place::checkout().join(name);
        let digest = |program: &str| -> Result<String> {
            Ok(read(Command::new(program).arg(&path))?.split(' ').next().unwrap_or_default().to_owned())
        };
        ensure!(hashes.contains(&digest("sha256sum")?), "packaging/buildroot: {name} has changed");
        ensure!(recipe.contains(&digest("md5sum")?), "packaging/yocto: {name} has changed");
    }
    Ok(())
}

/// Both copy the payload and hand over to repot, in the same way.
#[test]
fn initramfs_tools_has_the_handoff_of_dracut() -> Result<()> {
    let same =
        text(&top().join("initramfs-tools/repot-handoff"))? == text(&top().join("dracut/90repot/handoff"))?;
    ensure!(same, "initramfs-tools/repot-handoff is not dracut/90repot/handoff");
    Ok(())
}
