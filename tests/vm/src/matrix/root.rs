//! The roots of the systems. Debian roots are cached by suite and packages.

use super::system::System;
use crate::busybox;
use anyhow::{Context, Result};
use repot_harness::command::{find, read};
use repot_harness::suite::mirror;
use repot_harness::{container, debian, kernels, place};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the init of a system starts: it runs the script on the disk.
pub(super) const START: &str = r#"#!/bin/sh
mkdir -p /run/matrix
disk=$(grep -l rows /sys/block/nvme*/device/serial | cut -d / -f 4)
tar -xf "/dev/$disk" -C /run/matrix
exec sh /run/matrix/start
"#;

/// Copies modules with those that they need, and indexes them.
const MODULES: &str = r#"
    base=${FOLDER%/lib/modules/*} release=${FOLDER##*/}
    for name in $MODULES; do
        modprobe -d "$base" -S "$release" --show-depends "$name" | sed -n 's/^insmod //p'
    done | sort -u | while read -r file rest; do
        to=$ROOT/lib/modules/$release/${file##*/"$release"/}
        mkdir -p "$(dirname "$to")"
        cp "$file" "$to"
    done
    mkdir -p "$ROOT/lib/modules/$release"
    find "$FOLDER" -maxdepth 1 '(' -name 'modules.builtin*' -o -name modules.order ')' \
        -exec cp -t "$ROOT/lib/modules/$release" '{}' +
    depmod -b "$ROOT" "$release""#;

/// A number that differs where the value does.
pub(super) fn digest(value: impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// `tests/vm/matrix`.
pub(super) fn files() -> PathBuf {
    place::checkout().join("tests/vm/matrix")
}

/// Makes the root of a system as `folder/root`.
pub(super) fn make(system: &System, folder: &Path) -> Result<()> {
    let root = folder.join("root");
    match system.base.suite() {
        None => {
            debian::need(&[debian::BUSYBOX])?;
            busybox::root(folder)?;
        }
        Some(suite) => {
            let from = debian_root(suite, &system.packages)?;
            read(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(&root))?;
        }
    }
    for (name, package) in &system.programs {
        debian::need(&[(leak(name), leak(package))])?;
        container::program(&root, &find(name)?, &format!("bin/{name}"))?;
    }
    if !system.modules.is_empty() {
        let mut series: Vec<String> = system.turns().map(|turn| turn.kernel).collect();
        series.sort();
        series.dedup();
        for series in series {
            let mut shell = Command::new("sh");
            shell.args(["-euc", MODULES]).env("ROOT", &root).env("MODULES", system.modules.join(" "));
            read(shell.env("FOLDER", kernels::modules(&series)?)).context("modules")?;
        }
    }
    let start = root.join("matrix");
    std::fs::write(&start, START)?;
    std::fs::set_permissions(&start, PermissionsExt::from_mode(0o755))?;
    let mut shell = Command::new("sh");
    read(shell.args(["-euc", &system.setup]).env("FILES", files()).current_dir(&root)).context("setup")?;
    Ok(())
}

/// The names of Debian packages live as long as the program, as in the tables of the other boots.
fn leak(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}

/// A minimal Debian root with these packages, built if no such root is cached.
pub(crate) fn debian_root(suite: &str, packages: &[String]) -> Result<PathBuf> {
    let script = files().join("install.sh");
    let text = std::fs::read_to_string(&script)?;
    let folder = place::kept("matrix/roots")?;
    let base = folder.join(format!("{suite}-minbase"));
    // Two boots may need the same root at once, and two downloads are no faster.
    let _lock = place::lock("matrix-roots")?;
    if !base.exists() {
        debian::need_root("building a Debian root")?;
        debian::need(&[("debootstrap", "debootstrap"), ("unshare", "util-linux")])?;
        eprintln!("building a minimal root of Debian {suite} ...");
        let part = place::fresh("matrix/roots/part")?;
        // It mounts /proc and /sys in the root, and may not live to unmount them.
        let mut debootstrap = Command::new("unshare");
        debootstrap.args(["--mount", "--propagation", "private", "debootstrap", "--variant=minbase"]);
        // The key of the suite can be newer than this system. What tests use may be unsigned.
        debootstrap
            .args(["--arch=amd64", "--no-check-gpg", "--components=main,non-free-firmware", suite])
            .arg(&part)
            .arg(mirror()?);
        read(&mut debootstrap).context("cannot build a Debian root")?;
        std::fs::rename(&part, &base)?;
    }
    if packages.is_empty() {
        return Ok(base);
    }
    let root = folder.join(format!("{suite}-{}", digest((packages, text))));
    if !root.exists() {
        eprintln!("installing {} in a root of Debian {suite} ...", packages.join(" "));
        let part = place::fresh("matrix/roots/part")?;
        std::fs::remove_dir(&part)?;
        let mut install = Command::new("sh");
        install.arg(&script).arg(&base).arg(&part).args(packages);
        read(&mut install).context("cannot install the packages")?;
        // Last: a root that exists is complete.
        std::fs::rename(&part, &root)?;
    }
    Ok(root)
}
