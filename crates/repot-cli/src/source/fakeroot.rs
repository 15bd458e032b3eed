//! Owners and device nodes that only exist for fakeroot(1) or pseudo(1).
//!
//! Both are libraries that the dynamic linker loads into each program. This one is static, so neither reaches
//! it. It reads the state that `fakeroot -s` saves, or lets the `tar` of the system read the directory.

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use repot::facts::program::Program;
use rustix::fs::Stat;

use crate::programs;

/// The state of fakeroot: by device and inode, what it pretends.
#[derive(Debug, Default)]
pub struct State {
    known: HashMap<(u64, u64), Pretended>,
    /// How many entries were found in a directory.
    found: u64,
}

/// What fakeroot pretends about an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pretended {
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: u64,
}

impl State {
    /// Reads the file that `fakeroot -s FILE` has written.
    pub fn read(path: &Path) -> Result<State> {
        let shown = path.display();
        let bytes = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        ensure!(
            !bytes.starts_with(b"SQLite format 3"),
            "{shown} is a database, probably of pseudo: pack under pseudo, with the same PSEUDO_LOCALSTATEDIR"
        );
        let text = String::from_utf8(bytes).with_context(|| format!("{shown} is not text"))?;
        let mut state = State::default();
        for (number, line) in text.lines().enumerate() {
            let (key, pretended) = entry(line)
                .with_context(|| format!("{shown}:{}: not a line that fakeroot -s writes", number + 1))?;
            state.known.insert(key, pretended);
        }
        ensure!(!state.known.is_empty(), "{shown} is empty: fakeroot writes it when it exits");
        Ok(state)
    }

    /// An inode as fakeroot shows it. What it does not know belongs to root.
    pub(super) fn seen(&mut self, stat: &mut Stat) {
        (stat.st_uid, stat.st_gid) = (0, 0);
        if let Some(pretended) = self.known.get(&(stat.st_dev, stat.st_ino)) {
            self.found += 1;
            stat.st_mode = pretended.mode;
            (stat.st_uid, stat.st_gid, stat.st_rdev) = (pretended.uid, pretended.gid, pretended.rdev);
        }
    }

    /// Whether the state belongs to the directory that was read.
    pub(super) fn is_used(&self) -> bool {
        self.found > 0
    }
}

/// `dev=fe00,ino=100,mode=20600,uid=0,gid=0,nlink=1,rdev=1281`: the device in hexadecimal, the mode in octal.
fn entry(line: &str) -> Option<((u64, u64), Pretended)> {
    let fields: HashMap<&str, &str> = line.split(',').filter_map(|field| field.split_once('=')).collect();
    let number = |key: &str| fields.get(key)?.parse::<u64>().ok();
    let small = |key: &str| u32::try_from(number(key)?).ok();
    let device = u64::from_str_radix(fields.get("dev")?, 16).ok()?;
    let mode = u32::from_str_radix(fields.get("mode")?, 8).ok()?;
    let pretended = Pretended { mode, uid: small("uid")?, gid: small("gid")?, rdev: number("rdev")? };
    Some(((device, number("ino")?), pretended))
}

/// The program that this one was started under, if it is one that cannot reach it.
#[must_use]
pub fn wrapper() -> Option<&'static str> {
    let preload = env::var_os("LD_PRELOAD").unwrap_or_default();
    let preloads = |library: &str| preload.to_string_lossy().contains(library);
    if env::var_os("FAKEROOTKEY").is_some() || preloads("libfakeroot") {
        return Some("fakeroot");
    }
    // bitbake sets its variables for all tasks, and this one for those that need no pseudo.
    let disabled = env::var_os("PSEUDO_DISABLED").is_some_and(|value| value != "0" && !value.is_empty());
    let pseudo = preloads("libpseudo") || env::var_os("PSEUDO_LOCALSTATEDIR").is_some();
    (pseudo && !disabled).then_some("pseudo")
}

/// Whether the `tar` of the system can read a directory under it.
#[must_use]
pub fn can_help() -> bool {
    dynamic("tar").is_ok()
}

/// The `tar` of the system, which reads a directory as fakeroot or pseudo show it.
#[derive(Debug)]
pub(super) struct Tar {
    child: Child,
    wrapper: &'static str,
}

impl Tar {
    /// Starts it, and returns its output too.
    pub(super) fn start(root: &Path, wrapper: &'static str) -> Result<(Tar, File)> {
        let cannot = || {
            format!(
                "{wrapper} cannot reach this static program, and tar cannot help: use `{wrapper} tar -C {} -c . | \
                 repot pack -`, or --owner 0:0",
                root.display()
            )
        };
        dynamic("tar").with_context(cannot)?;
        let options =
            ["--format=pax", "--numeric-owner", "--xattrs", "--acls", "--one-file-system", "--sparse"];
        let mut command = Command::new("tar");
        command.args(options).arg("--xattrs-include=*").arg("-C").arg(root).args(["-cf", "-", "."]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.context("cannot run tar").with_context(cannot)?;
        let output = child.stdout.take().context("tar has no output")?;
        Ok((Tar { child, wrapper }, File::from(OwnedFd::from(output))))
    }

    /// Waits for its end.
    pub(super) fn finish(mut self) -> Result<()> {
        let status = self.child.wait().context("cannot wait for tar")?;
        ensure!(status.success(), "tar, which reads the directory under {}, failed: {status}", self.wrapper);
        Ok(())
    }
}

/// Fails if a program is static: fakeroot and pseudo would not reach it either.
fn dynamic(name: &str) -> Result<()> {
    let path = find(name).with_context(|| format!("{name} is not installed"))?;
    let mut head = Vec::new();
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(1 << 20).read_to_end(&mut head)?;
    match programs::of_bytes(&head) {
        Ok(Program { interpreter: Some(_), .. }) => Ok(()),
        _ => bail!("{} is static too", path.display()),
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| OsStr::new("/usr/bin:/bin").into());
    env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_state() {
        let line = "dev=fe00,ino=10069880,mode=20600,uid=5,gid=6,nlink=1,rdev=1281";
        let pretended = Pretended { mode: 0o20600, uid: 5, gid: 6, rdev: 1281 };
        assert_eq!(entry(line), Some(((0xfe00, 10_069_880), pretended)));
        for bad in ["", "dev=fe00", "dev=x,ino=1,mode=1,uid=1,gid=1,rdev=1"] {
            assert_eq!(entry(bad), None, "{bad}");
        }
    }
}
