//! Checks that read the source files themselves.

use anyhow::{Context, Result, ensure};
use repot_harness::command::{exists, read};
use repot_harness::place;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The most lines a file of product code may have.
const LINES: usize = 400;

/// The last column of a comment.
pub(super) const COLUMNS: usize = 110;

/// Unsafe code stays where a reader expects it: in `sys.rs` and below it. Every package denies it, so it is
/// enough to look where it is allowed again.
pub(super) fn unsafe_code() -> Result<()> {
    let denies =
        |text: &str| text.contains("[lints]\nworkspace = true") || text.contains("unsafe_code = \"deny\"");
    for (path, text) in tracked()?.iter().filter(|(path, _)| path.ends_with("Cargo.toml")) {
        ensure!(denies(text), "{} does not deny unsafe code", path.display());
    }
    let other = |path: &Path| is_rust(path) && path.file_name().is_none_or(|name| name != "sys.rs");
    let places = found(&tracked()?, other, allows_unsafe);
    ensure!(places.is_empty(), "unsafe code allowed outside of sys.rs: {}", places.join(", "));
    Ok(())
}

/// Whether a line of Rust is an attribute that allows unsafe code.
fn allows_unsafe(line: &str) -> bool {
    line.trim_start().starts_with('#') && line.contains("unsafe_code")
}

/// No file of product code has more than [`LINES`] lines.
pub(super) fn lengths() -> Result<()> {
    let mut long = Vec::new();
    for (path, text) in tracked()? {
        let lines = text.lines().count();
        if is_rust(&path) && path.starts_with("crates") && has_folder(&path, "src") && lines > LINES {
            long.push(format!("{} ({lines})", path.display()));
        }
    }
    ensure!(long.is_empty(), "more than {LINES} lines: {}", long.join(", "));
    Ok(())
}

/// Comments end at column [`COLUMNS`].
pub(super) fn comments() -> Result<()> {
    let places = found(&tracked()?, is_rust, is_wide);
    let cure = "run `cargo xtask lint --reflow FILE...`";
    ensure!(places.is_empty(), "comments beyond column {COLUMNS}: {}; {cure}", places.join(", "));
    Ok(())
}

/// Whether a line is a comment that ends beyond column [`COLUMNS`]. A single long word, such as a URL, cannot
/// be broken.
pub(super) fn is_wide(line: &str) -> bool {
    let words = line.trim_start().starts_with("//").then(|| line.split_whitespace().skip(1).count());
    words.is_some_and(|words| words > 1) && line.chars().count() > COLUMNS
}

/// The package mirror is the machine's business: its name works nowhere else.
pub(super) fn mirrors() -> Result<()> {
    if !exists("apt-get") {
        return Ok(());
    }
    let sites = read(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))
        .context("cannot list apt's mirrors")?;
    let hosts: Vec<&str> = sites.lines().filter_map(|site| site.split('/').nth(2)).collect();
    let places = found(&tracked()?, |_| true, |line| hosts.iter().any(|host| line.contains(host)));
    ensure!(places.is_empty(), "a package mirror is named in {}", places.join(", "));
    Ok(())
}

/// The text files that git tracks or would add, as paths and contents.
fn tracked() -> Result<Vec<(PathBuf, String)>> {
    // New files too: a check that waits for the commit comes too late.
    let words = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let list = read(Command::new("git").current_dir(place::checkout()).args(words))?;
    let mut files = Vec::new();
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        // A file that was deleted but is not committed yet, or that is not text, has nothing to check.
        if let Ok(text) = std::fs::read_to_string(place::checkout().join(name)) {
            files.push((PathBuf::from(name), text));
        }
    }
    Ok(files)
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn has_folder(path: &Path, name: &str) -> bool {
    path.parent().is_some_and(|folder| folder.components().any(|part| part.as_os_str() == name))
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
    use super::{allows_unsafe, has_folder, is_wide};
    use std::path::Path;

    #[test]
    fn an_attribute_allows_unsafe_code() {
        assert!(allows_unsafe("#![allow(unsafe_code)]"));
        assert!(allows_unsafe("    #[expect(dead_code, unsafe_code)]"));
        assert!(!allows_unsafe("pub(super) fn unsafe_code() -> Result<()> {"));
    }

    #[test]
    fn only_folders_count_as_folders() {
        assert!(has_folder(Path::new("crates/repot/src/sys/futex.rs"), "sys"));
        assert!(!has_folder(Path::new("crates/repot/src/sys"), "sys"));
    }

    #[test]
    fn wide_comments_are_found() {
        assert!(is_wide(&format!("    // {}", "word ".repeat(22))));
        assert!(!is_wide(&format!("    // {}", "word ".repeat(20))));
        assert!(!is_wide(&format!("let code = {};", "1 + ".repeat(40))));
        assert!(!is_wide(&format!("// https://example.org/{}", "x".repeat(120))));
    }
}
