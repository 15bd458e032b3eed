//! Programs from Debian packages. On Debian and as root they are installed, elsewhere the error names them.

use crate::command::{exists, run};
use crate::place;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// A program and the Debian package that has it.
pub type Tool = (&'static str, &'static str);

/// Boots the virtual machines.
pub const QEMU: Tool = ("qemu-system-x86_64", "qemu-system-x86");
/// Unpacks kernels.
pub const DPKG_DEB: Tool = ("dpkg-deb", "dpkg");
/// Downloads kernels.
pub const APT: Tool = ("apt-get", "apt");
/// A shell and tools in one static program.
pub const BUSYBOX: Tool = ("busybox", "busybox-static");
/// The container runtime of the demo.
pub const RUNC: Tool = ("runc", "runc");
/// Compiles the C libraries of the static tool.
pub const MUSL_GCC: Tool = ("musl-gcc", "musl-tools");
/// Checks how a program is linked.
pub const FILE: Tool = ("file", "file");

/// Programs that read and write the same formats as `repot`: the tests compare with them.
pub const TESTS: [Tool; 15] = [
    ("bsdtar", "libarchive-tools"),
    BUSYBOX,
    ("bzip2", "bzip2"),
    ("cpio", "cpio"),
    ("fakeroot", "fakeroot"),
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

/// Installs those of `tools` that are missing.
///
/// # Errors
/// If they cannot be installed here. The message says what to install.
pub fn need(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|(program, _)| !exists(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    if !is_debian() {
        let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
        bail!("missing programs: {} (not a Debian system: install them by hand)", programs.join(", "));
    }
    install(&packages)
}

/// Installs the package of a file, if that is missing.
///
/// # Errors
/// If it cannot be installed here. The message says what to install.
pub fn need_file(file: &Path, package: &str) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    if !is_debian() {
        bail!("missing file: {} (not a Debian system: install it by hand)", file.display());
    }
    install(&[package])
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && exists("apt-get")
}

fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !rustix::process::geteuid().is_root() {
        bail!("missing Debian packages: {list}\nas root: apt-get install {list}");
    }
    // Boots run side by side, and dpkg refuses a second caller.
    let _lock = place::lock("apt")?;
    println!("installing the Debian packages {list}");
    let apt = |words: &[&str]| {
        run(Command::new("apt-get")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let install = || apt(&[&["install", "-y", "--no-install-recommends"], packages].concat());
    // On a fresh machine the package lists are missing or old.
    if install().is_err() {
        apt(&["update"])?;
        install()?;
    }
    Ok(())
}

/// Fails unless this program runs as root, which device nodes and files of other owners need.
///
/// # Errors
/// If the effective user is not root.
pub fn need_root(what: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        bail!("{what} needs root, to create device nodes and files of other owners")
    }
}
