//! What every program has inside besides packages of cargo: the C library, and Rust's own libraries.

use super::{Arch, Library, musl, target};
use crate::command::read;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library that is linked statically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Its license, as an SPDX expression.
    pub license: &'static str,
}

/// Those of the programs for an architecture.
///
/// # Errors
/// If one is missing, or its file has no version.
pub fn libraries(arch: Arch) -> Result<Vec<Linked>> {
    let rustc = || Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let text = read(rustc().arg("-vV"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("release: "));
    let version = version.context("rustc prints no version")?.to_owned();
    let rust = Linked { name: "rust", version, license: "MIT OR Apache-2.0" };
    let file = match target(arch) {
        Ok((triple, Library::Musl)) => {
            let folder = read(rustc().args(["--print", "target-libdir", "--target", triple]))?;
            PathBuf::from(folder.trim()).join("self-contained/libc.a")
        }
        Ok((_, Library::Built)) => return Ok(vec![rust, musl(&musl::library(arch)?)?]),
        Ok((_, Library::Glibc)) => {
            let (compiler, _) = arch.c_compiler();
            return Ok(vec![rust, glibc(Path::new(&arch.c_library().0))?, libgcc(compiler)?]);
        }
        // As `triple` does.
        Err(_) => {
            return Ok(vec![rust, glibc(Path::new("/usr/lib/x86_64-linux-gnu/libc.a"))?, libgcc("cc")?]);
        }
    };
    Ok(vec![rust, musl(&file)?])
}

fn musl(file: &Path) -> Result<Linked> {
    let version = find(file, |text| {
        let numbers = text.split('.').filter(|part| part.parse::<u32>().is_ok()).count();
        (numbers == 3 && text.split('.').count() == 3).then(|| text.to_owned())
    })?;
    Ok(Linked { name: "musl", version, license: "MIT" })
}

fn glibc(file: &Path) -> Result<Linked> {
    let version = find(file, |text| {
        let (_, version) = text.strip_prefix("GNU C Library ")?.split_once(" release version ")?;
        Some(
            version
                .split(|letter: char| !letter.is_ascii_digit() && letter != '.')
                .next()?
                .trim_matches('.')
                .into(),
        )
    })?;
    Ok(Linked { name: "glibc", version, license: "LGPL-2.1-or-later" })
}

/// The compiler's own functions, which the static glibc calls.
fn libgcc(compiler: &str) -> Result<Linked> {
    let version = read(Command::new(compiler).arg("-dumpfullversion"))?.trim().to_owned();
    Ok(Linked { name: "libgcc", version, license: "GPL-3.0-or-later WITH GCC-exception-3.1" })
}

/// The version in the first text of an archive that is one.
fn find(file: &Path, version: impl Fn(&str) -> Option<String>) -> Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let texts = bytes.split(|byte| !(b' '..=b'~').contains(byte));
    let found = texts.filter_map(|text| std::str::from_utf8(text).ok()).find_map(version);
    found.with_context(|| format!("{} has no version", file.display()))
}
