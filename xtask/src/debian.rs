//! Programs that Debian packages bring: installed where that is possible, named where it is not.

use crate::command::{exists, run};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// A program and the Debian package it is in.
pub(crate) type Tool = (&'static str, &'static str);

pub(crate) const QEMU: Tool = ("qemu-system-x86_64", "qemu-system-x86");
pub(crate) const DPKG_DEB: Tool = ("dpkg-deb", "dpkg");
pub(crate) const APT: Tool = ("apt-get", "apt");
pub(crate) const BUSYBOX: Tool = ("busybox", "busybox-static");
pub(crate) const RUNC: Tool = ("runc", "runc");
pub(crate) const MUSL_GCC: Tool = ("musl-gcc", "musl-tools");
pub(crate) const FILE: Tool = ("file", "file");

/// What the tests compare the tool with: others that write and read the same formats.
pub(crate) const TESTS: [Tool; 13] = [
    ("bsdtar", "libarchive-tools"),
    BUSYBOX,
    ("cpio", "cpio"),
    ("gzip", "gzip"),
    ("lz4", "lz4"),
    ("mandoc", "mandoc"),
    ("setfacl", "acl"),
    ("setfattr", "attr"),
    ("skopeo", "skopeo"),
    ("tar", "tar"),
    ("umoci", "umoci"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// Makes sure of all `tools` before anything is begun.
pub(crate) fn need(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|(program, _)| !exists(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let list = packages.join(" ");
    let root = rustix::process::geteuid().is_root();
    if !Path::new("/etc/debian_version").exists() || !exists("apt-get") {
        let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
        bail!(
            "missing: {} (this is no Debian system, so they have to be installed by hand)",
            programs.join(", ")
        );
    }
    if !root {
        bail!("missing Debian packages: {list}\nas root: apt-get install {list}");
    }
    println!("installing the Debian packages {list}");
    let apt = |words: &[&str]| {
        run(Command::new("apt-get")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let install = || apt(&[&["install", "-y", "--no-install-recommends"], &packages[..]].concat());
    // On a fresh machine the package lists are missing or old.
    if install().is_err() {
        apt(&["update"])?;
        install()?;
    }
    Ok(())
}

/// Trees with device nodes and foreign owners can be made by root alone.
pub(crate) fn need_root(what: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        bail!("{what} needs root: there are device nodes and files of other owners in them")
    }
}
