//! `packaging/`: what other projects need to adopt repot, each built and booted by its `test.sh`.
//!
//! The head of a script says what it needs: the packages of two Debian roots (`debian:` and `system:`), and
//! programs and files of this machine with the Debian packages that have them (`programs:` and `files:`).
//! `packaging/test/lib.sh` is what the scripts share.

use crate::{matrix, programs};
use anyhow::{Context, Result, bail, ensure};
use repot_harness::{debian, kernels, place};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The kernel that the guests boot.
const KERNEL: &str = "6.12";

/// Runs the tests whose name contains `filter`, one after the other, or prints their names.
///
/// # Errors
/// If no test has such a name, or one fails.
pub fn packaging(filter: &str, list: bool) -> Result<()> {
    let names: Vec<String> = names()?.into_iter().filter(|name| name.contains(filter)).collect();
    ensure!(!names.is_empty(), "no folder of packaging/ is called {filter:?}; see --list");
    if list {
        names.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    debian::need_root("building and booting systems")?;
    debian::need(&[debian::QEMU, debian::BUSYBOX, ("cpio", "cpio"), ("unshare", "util-linux")])?;
    let mut failed = Vec::new();
    for name in names {
        let begun = Instant::now();
        println!("{name}:");
        let result = test(&name);
        let seconds = begun.elapsed().as_secs();
        match result {
            Ok(()) => println!("{name}: ok, {seconds} s"),
            Err(error) => {
                println!("{name}: FAILED after {seconds} s: {error:#}");
                failed.push(name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The folders with a test.
fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for item in std::fs::read_dir(folder()).context("cannot read packaging/")? {
        let item = item?;
        if item.path().join("test.sh").is_file() {
            names.push(item.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn folder() -> PathBuf {
    place::checkout().join("packaging")
}

fn test(name: &str) -> Result<()> {
    let files = folder().join(name);
    let script = files.join("test.sh");
    let text = std::fs::read_to_string(&script).with_context(|| script.display().to_string())?;
    for (program, package) in pairs(&text, "programs")? {
        debian::need(&[(program.leak(), package.leak())])?;
    }
    for (file, package) in pairs(&text, "files")? {
        debian::need_file(Path::new(&file), &package)?;
    }
    let mut shell = Command::new("bash");
    for (key, variable) in [("debian", "ROOT"), ("system", "SYSTEM")] {
        if let Some(packages) = head(&text, key) {
            let packages: Vec<String> = packages.split_whitespace().map(str::to_owned).collect();
            shell.env(variable, matrix::debian_root("trixie", &packages)?);
        }
    }
    shell
        .arg(&script)
        .current_dir(place::fresh(&format!("packaging/{name}"))?)
        .env("FILES", files)
        .env("REPOT", programs::tool()?)
        .env("INIT", programs::init()?)
        .env("INIT_PAYLOAD", programs::init_payload()?)
        .env("KERNEL", kernels::kernel(KERNEL)?.image)
        .env("MODULES", kernels::modules(KERNEL)?)
        // What a developer's shell sets must not change the result.
        .env_remove("REPOT_INIT")
        .env_remove("SOURCE_DATE_EPOCH");
    let status = shell.stdin(Stdio::null()).status().context("cannot run bash")?;
    if !status.success() {
        bail!("{status}; see target/packaging/{name}");
    }
    Ok(())
}

/// The rest of the line `# KEY: …` of a script.
fn head<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = |line: &'a str| line.strip_prefix("# ")?.strip_prefix(key)?.strip_prefix(": ");
    text.lines().take_while(|line| line.starts_with('#')).find_map(line)
}

/// The pairs `NAME=PACKAGE` of such a line.
fn pairs(text: &str, key: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for word in head(text, key).unwrap_or_default().split_whitespace() {
        let (name, package) =
            word.split_once('=').with_context(|| format!("`{word}` of `# {key}:` is not NAME=PACKAGE"))?;
        pairs.push((name.to_owned(), package.to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::{head, pairs};

    #[test]
    fn the_head_of_a_script_says_what_it_needs() {
        let text =
            "#!/bin/bash\n# debian: dracut kmod\n# programs: mcopy=mtools cc=gcc\nstep\n# files: /a=b\n";
        assert_eq!(head(text, "debian"), Some("dracut kmod"));
        assert_eq!(pairs(text, "programs").expect("pairs").len(), 2);
        // Only the comments at the top count.
        assert!(pairs(text, "files").expect("pairs").is_empty());
        assert!(pairs("# programs: mcopy\n", "programs").is_err());
    }
}
