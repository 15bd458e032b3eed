//! `cargo xtask lint`: format, clippy, licences and sources, and two rules of the house no tool knows.

use crate::command::{exists, read, run};
use crate::place;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs all checks and fails with everything that was found.
pub(crate) fn lint() -> Result<()> {
    let mut failed = Vec::new();
    for (name, check) in [
        ("cargo fmt", format as fn() -> Result<()>),
        ("cargo clippy", clippy),
        ("unsafe stands in sys only", unsafe_code),
        ("no package mirror is named", mirrors),
        ("cargo deny", deny),
    ] {
        match check() {
            Ok(()) => println!("lint: {name} ... ok"),
            Err(error) => {
                println!("lint: {name} ... FAILED: {error:#}");
                failed.push(name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(place::checkout()).args(words);
    cargo
}

fn format() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    run(cargo(&["clippy", "--quiet", "--workspace", "--exclude", "repot-init", "--all-targets"])
        .args(["--", "-D", "warnings"]))?;
    // The init has a panic handler of its own, and so is checked as it is built: alone, for its own target.
    let (triple, flags) = crate::dist::triple(crate::dist::Arch::X86_64)?;
    let init = ["clippy", "--quiet", "--package=repot-init", "--profile=init", "--target"];
    run(cargo(&init).arg(triple).args(["--", "-D", "warnings"]).envs(flags))
}

fn deny() -> Result<()> {
    let program = cargo_deny()?;
    // Advisories would need the advisory database, which is not in every place this runs in.
    let checks = ["--log-level", "error", "check", "licenses", "bans", "sources"];
    run(Command::new(program).current_dir(place::checkout()).args(checks))
}

/// Ours, the system's, or one that is built now.
fn cargo_deny() -> Result<PathBuf> {
    let tools = place::kept("tools")?;
    let ours = tools.join("bin/cargo-deny");
    if !ours.exists() {
        if exists("cargo-deny") {
            return Ok("cargo-deny".into());
        }
        println!("building cargo-deny into target/tools, which takes some minutes");
        run(cargo(&["install", "--quiet", "cargo-deny", "--locked", "--root"]).arg(&tools))?;
    }
    Ok(ours)
}

/// Files that git knows of, as paths and texts.
fn tracked() -> Result<Vec<(PathBuf, String)>> {
    let list = read(Command::new("git").current_dir(place::checkout()).args(["ls-files", "-z"]))?;
    let mut files = Vec::new();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        // Deleted and not yet committed, or not text: nothing to look at.
        if let Ok(text) = std::fs::read_to_string(place::checkout().join(name)) {
            files.push((PathBuf::from(name), text));
        }
    }
    Ok(files)
}

fn unsafe_code() -> Result<()> {
    let rust = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    let allowed = |path: &Path| {
        path.file_name().is_some_and(|name| name == "sys.rs")
            || path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "sys")
    };
    let places = found(&tracked()?, |path| rust(path) && !allowed(path), has_unsafe);
    ensure!(places.is_empty(), "unsafe outside of sys.rs: {}", places.join(", "));
    Ok(())
}

/// Whether a line of Rust has the keyword in it; the lint's name and comments do not count.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let words = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.into_iter().any(|word| word == "unsafe") && !code.contains('"')
}

/// The mirror is the machine's business: what names it works nowhere else.
fn mirrors() -> Result<()> {
    if !exists("apt-get") {
        return Ok(());
    }
    let sites = read(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))
        .context("apt's mirrors")?;
    let hosts: Vec<&str> = sites.lines().filter_map(|site| site.split('/').nth(2)).collect();
    let places = found(&tracked()?, |_| true, |line| hosts.iter().any(|host| line.contains(host)));
    ensure!(places.is_empty(), "a package mirror is named in {}", places.join(", "));
    Ok(())
}

fn found(
    files: &[(PathBuf, String)],
    which: impl Fn(&Path) -> bool,
    what: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut places = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| which(path)) {
        for (number, _) in text.lines().enumerate().filter(|(_, line)| what(line)) {
            places.push(format!("{}:{}", path.display(), number + 1));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::has_unsafe;

    #[test]
    fn the_keyword_is_told_from_the_lint() {
        assert!(has_unsafe("    let x = unsafe { f() };"));
        assert!(has_unsafe("#[unsafe(no_mangle)]"));
        assert!(!has_unsafe("#![allow(unsafe_code)]"));
        assert!(!has_unsafe("// unsafe { f() }"));
        assert!(!has_unsafe("call(\"unsafe\")"));
    }
}
