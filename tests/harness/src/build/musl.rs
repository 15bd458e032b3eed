//! Debian's musl for another architecture, which is not installed: its headers for the C libraries of the
//! tool, and the library itself where Rust has none.

use super::Arch;
use crate::command::{read, run};
use crate::suite::{Kind, Suite};
use crate::{debian, place};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `std` calls of a library that unwinds.
const UNWIND: [&str; 13] = [
    "Backtrace",
    "DeleteException",
    "FindEnclosingFunction",
    "GetCFA",
    "GetDataRelBase",
    "GetIP",
    "GetIPInfo",
    "GetLanguageSpecificData",
    "GetRegionStart",
    "GetTextRelBase",
    "RaiseException",
    "SetGR",
    "SetIP",
];

/// Its headers.
pub(super) fn headers(arch: Arch) -> Result<PathBuf> {
    Ok(unpacked(arch)?.join(format!("usr/include/{}-linux-musl", arch.name())))
}

/// The library.
pub(super) fn library(arch: Arch) -> Result<PathBuf> {
    Ok(libraries(&unpacked(arch)?).join("libc.a"))
}

/// Whether the library and the sources of Rust's libraries are here already.
pub(super) fn is_present(arch: Arch) -> bool {
    libraries(&folder(arch)).join("libc.a").exists() && rust_sources().is_ok_and(|sources| sources.exists())
}

/// Gets both, if missing.
pub(super) fn have(arch: Arch) -> Result<()> {
    let _lock = place::lock("rustup")?;
    if !rust_sources()?.exists() {
        println!("adding the sources of Rust's libraries");
        let mut add = Command::new("rustup");
        read(add.args(["component", "add", "rust-src"]).env("RUST_BACKTRACE", "0")).with_context(|| {
            "the sources of Rust's libraries are missing and cannot be added (with rustup: `rustup component add \
             rust-src`)"
        })?;
    }
    unpacked(arch).map(drop)
}

/// The flags that link a program with it, by the linker of the Rust toolchain.
pub(super) fn flags(arch: Arch) -> Result<String> {
    // Relative to where cargo runs the linker: the path of the checkout may have spaces in it.
    let libraries = place::short(&libraries(&unpacked(arch)?));
    // Rust has the files that start a program beside its library only. A program is smaller than the 128 MiB
    // that a call of the small code model reaches.
    let start = ["crt1.o", "crti.o", "crtn.o"].map(|file| format!("-Clink-arg={libraries}/{file}"));
    Ok(format!(
        "-Ccode-model=small -Clink-self-contained=no {} -Lnative={libraries} -Clink-arg=-lc",
        start.join(" ")
    ))
}

/// The arguments by which cargo compiles Rust's own libraries: for the programs of a release, which are
/// without `std`, or for others. Neither unwinds.
pub(super) fn of_rust(released: bool) -> [&'static str; 2] {
    if released {
        ["-Zbuild-std=core,alloc,panic_abort", "-Zbuild-std-features=optimize_for_size"]
    } else {
        // Without the default feature `panic-unwind`, which needs a library that unwinds.
        ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features="]
    }
}

/// In place of a library that unwinds, a script for the linker: nothing here unwinds, and a panic prints no
/// backtrace unless RUST_BACKTRACE asks for one.
fn unwinding() -> String {
    UNWIND.map(|name| format!("PROVIDE(_Unwind_{name} = abort);\n")).concat()
}

fn rust_sources() -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = read(Command::new(rustc).args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core"))
}

fn folder(arch: Arch) -> PathBuf {
    place::checkout().join("target/musl").join(arch.name())
}

/// Where Debian's package has the libraries.
fn libraries(unpacked: &Path) -> PathBuf {
    let folders = std::fs::read_dir(unpacked.join("usr/lib")).into_iter().flatten().flatten();
    let musl = |name: &Path| name.to_string_lossy().contains("-linux-musl");
    folders.map(|folder| folder.path()).find(|path| musl(path)).unwrap_or_default()
}

/// The unpacked package, downloaded if missing.
fn unpacked(arch: Arch) -> Result<PathBuf> {
    let _lock = place::lock("musl")?;
    let kept = folder(arch);
    if !kept.exists() {
        debian::need(&[debian::APT, debian::DPKG_DEB])?;
        place::kept("musl")?;
        let work = place::fresh(&format!("musl/unpack-{}", arch.name()))?;
        let suite = Suite::open(arch.musl_suite(), Kind::Binary, arch)?;
        println!("downloading musl-dev for {} ({})", arch.name(), suite.name());
        run(suite.apt("apt-get").current_dir(&work).args(["-qq", "download", "musl-dev"]))?;
        let package = std::fs::read_dir(&work)?.next().context("no package downloaded")??.path();
        run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(work.join("tree")))?;
        std::fs::write(libraries(&work.join("tree")).join("libunwind.a"), unwinding())?;
        std::fs::rename(work.join("tree"), &kept).context("the package of musl")?;
        std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    Ok(kept)
}
