//! The trees that the contenders move. Debian roots are kept between runs, generated trees are created for
//! each run.

use anyhow::{Context, Result, bail};
use repot_harness::command::{read, run};
use repot_harness::{debian, place, suite};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tree and its name on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) name: String,
    /// A description for tables.
    pub(crate) about: String,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    /// debootstrap's minbase with these packages.
    Debian { packages: &'static str },
    /// `count` files of `bytes` bytes, a hundred per directory.
    Files { count: u64, bytes: u64 },
}

const MIB: u64 = 1 << 20;

/// The trees that every contender moves.
pub(crate) fn all() -> Vec<Tree> {
    let debian = Tree::debian;
    vec![
        debian("debian", "systemd,systemd-sysv", "Debian minbase with systemd"),
        debian(
            "toolchains",
            "systemd,systemd-sysv,gcc,g++,clang,golang-go,python3,perl,git,cmake",
            "Debian with compilers",
        ),
        files("large", 1, 200 * MIB, "one file of 200 MiB"),
        files("small", 100_000, 1024, "100,000 files of 1 KiB"),
    ]
}

/// The trees of the growth curve.
pub(crate) fn growing(quick: bool) -> Vec<Tree> {
    let counts: &[u64] = if quick { &[10_000, 100_000] } else { &[10_000, 100_000, 1_000_000] };
    counts.iter().map(|count| files(&format!("grow-{count}"), *count, 1024, "files of 1 KiB")).collect()
}

/// One file of this many MiB.
pub(crate) fn one_file(mib: u64) -> Tree {
    files(&format!("file-{mib}"), 1, mib * MIB, &format!("one file of {mib} MiB"))
}

fn files(name: &str, count: u64, bytes: u64, about: &str) -> Tree {
    Tree { name: name.into(), about: about.into(), source: Source::Files { count, bytes } }
}

impl Tree {
    /// debootstrap's minbase with these packages.
    pub(crate) fn debian(name: &str, packages: &'static str, about: &str) -> Tree {
        Tree { name: name.into(), about: about.into(), source: Source::Debian { packages } }
    }

    /// Whether one run takes half a minute: such trees get fewer runs.
    pub(crate) fn is_heavy(&self) -> bool {
        matches!(self.source, Source::Files { count: 1_000_000.., .. })
    }

    /// Builds what is kept between runs.
    pub(crate) fn prepare(&self) -> Result<()> {
        let Source::Debian { packages } = self.source else { return Ok(()) };
        let kept = self.kept()?;
        if kept.is_dir() {
            return Ok(());
        }
        debian::need(&[("debootstrap", "debootstrap")])?;
        let made = place::fresh(&format!("bench/{}.making", self.name))?;
        let suite = suite()?;
        println!("building the tree {} (Debian {suite} with {packages}) below target/bench", self.name);
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", &format!("--include={packages}"), &suite]);
        read(debootstrap.arg(&made).arg(suite::mirror()?))?;
        // Downloaded packages are not part of a root that boots.
        for item in fs::read_dir(made.join("var/cache/apt/archives"))? {
            let path = item?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                fs::remove_file(path)?;
            }
        }
        bare(&made).context("cannot remove extended attributes")?;
        fs::rename(&made, &kept).with_context(|| format!("cannot keep the tree {}", self.name))
    }

    /// Where a Debian root is kept.
    pub(crate) fn kept(&self) -> Result<PathBuf> {
        Ok(place::kept("bench")?.join(&self.name))
    }

    /// Fills an empty directory with the tree, without the files that [`super::contenders`] adds.
    pub(crate) fn fill(&self, to: &Path) -> Result<()> {
        match &self.source {
            Source::Debian { .. } => {
                let from = self.kept()?.join(".");
                run(Command::new("cp").arg("-a").arg(from).arg(to)).context("cannot fill the old root")?;
            }
            Source::Files { count, bytes } => {
                generate(to, *count, *bytes).context("cannot fill the old root")?
            }
        }
        for folder in ["dev", "etc", "mnt", "proc", "run", "sbin", "sys", "tmp"] {
            fs::create_dir_all(to.join(folder)).with_context(|| format!("cannot make {folder}"))?;
        }
        for program in ["init", "sbin/init"] {
            match fs::remove_file(to.join(program)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!("{program}: {error}"),
                _ => {}
            }
        }
        Ok(())
    }
}

fn generate(to: &Path, count: u64, bytes: u64) -> Result<()> {
    // No two pages are equal, so that no contender gains by not copying one.
    let mut window = vec![0u8; usize::try_from(bytes.min(MIB))?];
    let mut folder = to.to_owned();
    for number in 0..count {
        if number % 100 == 0 {
            folder = to.join(format!("data/{:03}/{:03}", number / 100_000, number / 100 % 1000));
            fs::create_dir_all(&folder)?;
        }
        let file = fs::File::create(folder.join(format!("file-{number}")))?;
        let mut at = 0;
        while at < bytes {
            let part = &mut window[..usize::try_from((bytes - at).min(MIB))?];
            for (page, start) in (at..).step_by(1024).zip(part.chunks_mut(1024)) {
                let mark = (number << 32 | page).to_le_bytes();
                start[..8.min(mark.len())].copy_from_slice(&mark);
            }
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
    }
    Ok(())
}

/// Removes extended attributes, ACLs included, because an initramfs has none.
fn bare(path: &Path) -> Result<()> {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).or_else(|error| match error {
        rustix::io::Errno::OPNOTSUPP => Ok(0),
        error => Err(error),
    })?;
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        rustix::fs::lremovexattr(path, name)?;
    }
    if path.symlink_metadata()?.is_dir() {
        for item in path.read_dir()? {
            bare(&item?.path())?;
        }
    }
    Ok(())
}

/// The Debian suite of this machine.
fn suite() -> Result<String> {
    let words = ["indextargets", "--format", "$(CODENAME)", "Label: Debian"];
    let names = read(Command::new("apt-get").args(words))?;
    names.lines().next().map(str::to_owned).context("this machine's apt knows no Debian suite")
}
