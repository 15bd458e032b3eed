//! The packages that are linked into a program.

use anyhow::{Context, Result};
use repot_harness::command::{cargo, read};
use repot_harness::place;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A package, from cargo's metadata.
#[derive(Debug, Clone)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// As an SPDX expression.
    pub(super) license: String,
    pub(super) folder: PathBuf,
    /// Of the archive that cargo downloads; those of this workspace have none.
    pub(super) checksum: Option<String>,
    /// The packages of the workspace.
    pub(super) own: bool,
}

/// All packages of the lock file, by name and version.
pub(super) struct Packages(BTreeMap<(String, String), Package>);

/// Reads the metadata and the lock file.
pub(super) fn packages() -> Result<Packages> {
    let text = read(cargo().args(["metadata", "--format-version=1", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata")?;
    let checksums = checksums()?;
    let mut packages = BTreeMap::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists no packages")? {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let key = (text("name"), text("version"));
        let manifest = PathBuf::from(text("manifest_path"));
        let found = Package {
            name: key.0.clone(),
            version: key.1.clone(),
            license: text("license"),
            folder: manifest.parent().context("a manifest without a folder")?.to_owned(),
            checksum: checksums.get(&key).cloned(),
            own: package["source"].is_null(),
        };
        packages.insert(key, found);
    }
    Ok(Packages(packages))
}

/// The checksums in the lock file.
fn checksums() -> Result<BTreeMap<(String, String), String>> {
    let text = std::fs::read_to_string(place::checkout().join("Cargo.lock")).context("Cargo.lock")?;
    let mut checksums = BTreeMap::new();
    for block in text.split("[[package]]") {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
            line.map(|value| value.trim_end_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (value("name"), value("version"), value("checksum"))
        {
            checksums.insert((name, version), checksum);
        }
    }
    Ok(checksums)
}

impl Packages {
    /// Those that are linked into programs of the workspace for a target. Macros and what only build scripts
    /// use are not.
    pub(super) fn of(&self, programs: &[&str], features: &[&str], triple: &str) -> Result<Vec<Package>> {
        let mut keys = BTreeSet::new();
        for program in programs {
            let mut tree = cargo();
            tree.args(["tree", "--locked", "--prefix=none", "--edges=normal,no-proc-macro", "--format={p}"]);
            tree.args(["--target", triple, "--package", program]);
            if *program == "repot-init" {
                tree.arg("--features").arg(features.join(","));
            }
            for line in read(&mut tree)?.lines() {
                let mut words = line.split(' ');
                if let (Some(name), Some(version)) = (words.next(), words.next()) {
                    keys.insert((name.to_owned(), version.trim_start_matches('v').to_owned()));
                }
            }
        }
        let missing = |(name, version): &(String, String)| format!("{name} {version} is not in the metadata");
        keys.iter().map(|key| self.0.get(key).cloned().with_context(|| missing(key))).collect()
    }
}
