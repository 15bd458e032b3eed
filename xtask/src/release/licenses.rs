//! The licenses of everything that is linked: each package's own texts, and those of the C libraries in it.

use super::archive::Files;
use super::linked::Package;
use super::read_file;
use anyhow::{Context, Result, ensure};
use repot_harness::command::read;
use repot_harness::place;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The texts as `PACKAGE-VERSION/FILE`, and `summary` with a line for each package.
pub(super) fn of(linked: &[Package], triple: &str) -> Result<Files> {
    let mut files = Files::default();
    let mut summary = String::from("What is linked into the programs, and its license.\n\n");
    for package in linked.iter().filter(|package| !package.own) {
        let name = format!("{}-{}", package.name, package.version);
        ensure!(!package.license.is_empty(), "{name} names no license");
        summary += &format!("{name}: {}\n", package.license);
        let texts = texts(&package.folder, 2)?;
        for path in &texts {
            let short = path.strip_prefix(&package.folder).context("a text in its package")?;
            files.file(&format!("{name}/{}", short.display()), read_file(path)?);
        }
        if texts.is_empty() {
            // Its archive has no text. That of its license is the same everywhere, but for the names.
            for (license, file) in [("MIT", "LICENSE-MIT"), ("Apache-2.0", "LICENSE-APACHE")] {
                if package.license.contains(license) {
                    let text = read_file(&place::checkout().join(file))?;
                    let authors =
                        format!("The text of {license}; its copyright is of the authors of {name}.\n\n");
                    let text = [authors.as_bytes(), &text].concat();
                    files.file(&format!("{name}/{file}"), text);
                }
            }
            ensure!(files.iter().any(|(path, _)| path.starts_with(&name)), "no text of {}", package.license);
        }
    }
    for (name, license, path) in c_library(triple) {
        files.file(&format!("{name}/copyright"), read_file(Path::new(path))?);
        summary += &format!("{name}: {license}\n");
    }
    rust(&mut files)?;
    summary += "the standard library of Rust: MIT OR Apache-2.0\n";
    files.file("summary", summary.into_bytes());
    Ok(files)
}

/// The C library, its license and Debian's copy of the text.
fn c_library(triple: &str) -> Vec<(&'static str, &'static str, &'static str)> {
    if triple.ends_with("musl") || triple.ends_with("musleabihf") {
        vec![("musl", "MIT", "/usr/share/doc/musl/copyright")]
    } else {
        vec![
            ("glibc", "LGPL-2.1-or-later", "/usr/share/doc/libc6/copyright"),
            ("glibc-lgpl", "the text of LGPL-2.1", "/usr/share/common-licenses/LGPL-2.1"),
            ("libgcc", "GPL-3.0-or-later WITH GCC-exception-3.1", "/usr/share/doc/libgcc-s1/copyright"),
        ]
    }
}

/// The texts that come with the compiler, of the project that has the standard library too.
fn rust(files: &mut Files) -> Result<()> {
    let root = PathBuf::from(read(Command::new("rustc").args(["--print", "sysroot"]))?);
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let places = ["share/doc/rust", "share/doc/rustc", "share/doc/cargo"];
        let found = places.map(|place| root.join(place).join(name)).into_iter().find(|path| path.is_file());
        let path = found.with_context(|| format!("the toolchain {} has no {name}", root.display()))?;
        files.file(&format!("rust/{name}"), read_file(&path)?);
    }
    Ok(())
}

/// The files below a folder whose names begin as those of licenses do, sorted.
fn texts(folder: &Path, depth: u32) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
        let named = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
        if path.is_dir() {
            if depth > 1 && !name.starts_with('.') {
                found.extend(texts(&path, depth - 1)?);
            }
        } else if named.iter().any(|start| name.starts_with(start)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::linked;
    use super::*;

    #[test]
    fn the_texts_of_the_c_libraries_are_among_those_of_their_packages() {
        let packages = linked::packages().unwrap();
        let linked =
            packages.of(&["repot-cli", "repot-init"], &["payload"], "x86_64-unknown-linux-musl").unwrap();
        let find = |name: &str| linked.iter().find(|package| package.name == name).unwrap();
        let zstd = texts(&find("zstd-sys").folder, 2).unwrap();
        let text = zstd.iter().find(|path| path.ends_with("zstd/LICENSE")).expect("the license of zstd");
        assert!(fs::read_to_string(text).unwrap().contains("BSD License"), "{}", text.display());
        let lzma = texts(&find("liblzma-sys").folder, 2).unwrap();
        assert!(lzma.iter().any(|path| path.ends_with("xz/COPYING")), "{lzma:?}");
        // Every package has a text, and the summary a line.
        let files = of(&linked, "x86_64-unknown-linux-musl").unwrap();
        let summary = String::from_utf8(files.get("summary").unwrap().to_vec()).unwrap();
        for package in linked.iter().filter(|package| !package.own) {
            let name = format!("{}-{}", package.name, package.version);
            assert!(summary.contains(&format!("{name}: ")), "{name}");
            assert!(files.iter().any(|(path, _)| path.starts_with(&format!("{name}/"))), "{name}");
        }
        // Only build scripts use it.
        assert!(linked.iter().all(|package| package.name != "cc"));
    }
}
