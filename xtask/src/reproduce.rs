//! `cargo xtask reproduce`: builds one commit twice and compares the bytes.
//!
//! The two builds differ in all that must not matter: the path of the checkout, the home of cargo, and
//! whether the sources of the standard library are installed (the component `rust-src`).

use anyhow::{Context, Result, ensure};
use repot_harness::command::{read, run};
use repot_harness::place;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Choice {
    /// Build the whole release of x86_64 twice, the tool and the archives included, instead of the inits
    #[arg(long)]
    release: bool,
}

/// One of the two builds.
struct Place {
    /// Paths of different lengths, because lengths show in programs, too.
    checkout: PathBuf,
    home: PathBuf,
    toolchain: PathBuf,
}

/// Builds the last commit twice and fails if a file differs.
pub(crate) fn reproduce(choice: &Choice) -> Result<()> {
    let top = place::fresh("reproduce")?;
    let changed = read(git(&place::checkout()).args(["status", "--porcelain", "--untracked-files=no"]))?;
    if !changed.is_empty() {
        println!("what is not committed is not built");
    }
    // Both are of the same commit, whatever is committed during the first build.
    let places =
        [Place::prepare(&top.join("one"), false)?, Place::prepare(&top.join("another/place"), true)?];
    let mut built = Vec::new();
    for place in &places {
        built.push(place.build(choice)?);
    }
    let different: Vec<String> = differences(&built[0], &built[1]);
    ensure!(
        different.is_empty(),
        "the two builds differ (both are in target/reproduce): {}",
        different.join(", ")
    );
    for (name, bytes) in &built[0] {
        println!("{name}: {} bytes, the same in both", bytes.len());
    }
    fs::remove_dir_all(&top).with_context(|| format!("cannot remove {}", top.display()))
}

/// The names of the files that are not in both, or not equal.
fn differences(one: &BTreeMap<String, Vec<u8>>, other: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder);
    git
}

impl Place {
    fn prepare(folder: &Path, sources: bool) -> Result<Place> {
        let place = Place {
            checkout: folder.join("repot"),
            home: folder.join("home"),
            toolchain: folder.join("toolchain"),
        };
        fs::create_dir_all(&place.home)?;
        run(Command::new("git").args(["clone", "--quiet"]).arg(place::checkout()).arg(&place.checkout))?;
        place.prepare_home()?;
        place.prepare_toolchain(sources)?;
        Ok(place)
    }

    /// A home of cargo that has the configuration and the downloads of this user's, and unpacks them again.
    fn prepare_home(&self) -> Result<()> {
        let home = match std::env::var_os("CARGO_HOME") {
            Some(home) => PathBuf::from(home),
            None => std::env::home_dir().context("no home directory")?.join(".cargo"),
        };
        for name in ["config.toml", "registry/index", "registry/cache"] {
            let from = home.join(name);
            if from.exists() {
                let to = self.home.join(name);
                fs::create_dir_all(to.parent().context("a folder")?)?;
                run(Command::new("cp").arg("-a").arg(&from).arg(&to))?;
            }
        }
        Ok(())
    }

    /// The toolchain at another path, with the sources of the standard library or without. Its large files
    /// are links.
    fn prepare_toolchain(&self, sources: bool) -> Result<()> {
        let from = PathBuf::from(read(Command::new("rustc").args(["--print", "sysroot"]))?);
        // The compiler finds its library by its own path, so that one is a copy, and a link to everything
        // else.
        for name in ["bin", "lib", "lib/rustlib"] {
            fs::create_dir_all(self.toolchain.join(name))?;
        }
        for name in ["bin", "lib", "lib/rustlib", ""] {
            for entry in fs::read_dir(from.join(name))? {
                let path = entry?.path();
                let to = self.toolchain.join(path.strip_prefix(&from)?);
                if to.exists() || path.ends_with("lib/rustlib/src") {
                    continue;
                }
                let program = path.is_file() && (name == "bin" || name == "lib");
                if program && fs::hard_link(&path, &to).is_err() {
                    fs::copy(&path, &to).with_context(|| format!("cannot copy {}", path.display()))?;
                } else if !program {
                    symlink(&path, &to)?;
                }
            }
        }
        if sources {
            let library = self.toolchain.join("lib/rustlib/src/rust");
            let theirs = from.join("lib/rustlib/src/rust/library");
            if theirs.exists() {
                fs::create_dir_all(&library)?;
                symlink(theirs, library.join("library"))?;
            } else {
                // The compiler looks for this file, and then names the sources by their place on this
                // machine. It reads them only to show errors.
                println!("rust-src is not installed: an empty file stands in for it");
                let file = library.join("library/std/src/lib.rs");
                fs::create_dir_all(file.parent().context("a folder")?)?;
                fs::write(file, "")?;
            }
        }
        Ok(())
    }

    /// Builds, and reads what was built.
    fn build(&self, choice: &Choice) -> Result<BTreeMap<String, Vec<u8>>> {
        println!("building in {}", place::short(&self.checkout));
        let bin = self.toolchain.join("bin");
        let mut path = bin.clone().into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut cargo = Command::new(bin.join("cargo"));
        cargo.current_dir(&self.checkout).env("CARGO_HOME", &self.home).env("PATH", path);
        cargo.env("RUSTC", bin.join("rustc"));
        for name in
            ["CARGO", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "CARGO_MANIFEST_DIR", "RUSTFLAGS"]
        {
            cargo.env_remove(name);
        }
        let (command, folder) = if choice.release {
            ("release", format!("target/releases/{}", env!("CARGO_PKG_VERSION")))
        } else {
            ("dist", "target/dist/x86_64".to_owned())
        };
        cargo.args(["run", "--quiet", "--package=xtask", "--", command, "--arch=x86_64"]);
        run(cargo.args((command == "dist").then_some("--no-tool")))?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.checkout.join(folder))? {
            let path = entry?.path();
            let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
            files.insert(name, fs::read(&path)?);
        }
        ensure!(!files.is_empty(), "nothing was built");
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::differences;

    #[test]
    fn a_file_that_one_build_lacks_differs() {
        let build = |files: &[(&str, &str)]| {
            files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
        };
        let one = build(&[("init", "a"), ("run", "b")]);
        assert!(differences(&one, &one).is_empty());
        assert_eq!(differences(&one, &build(&[("init", "a")])), ["run"]);
        assert_eq!(differences(&one, &build(&[("init", "b"), ("run", "b")])), ["init"]);
    }
}
