//! The contenders, and how each one is installed in the old root or started.

use super::arena::Arena;
use super::programs;
use anyhow::{Context, Result, bail};
use repot_harness::{build, debian};
use std::fs::{Permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One contender.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    /// Its name on the command line.
    pub(crate) name: String,
    /// A description for tables.
    pub(crate) about: String,
    pub(crate) way: Way,
}

/// How it runs.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// As `/init`, with this `/etc/repot.conf`.
    Init { program: PathBuf, config: String },
    /// As a script that moves `$OLD` to `$NEW`.
    Script(&'static str),
    /// As a command of the guest program, which reports its own start and end.
    Guest { word: &'static str, rest: Vec<String> },
}

/// A program from the command line, run as `/init`.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl std::str::FromStr for Peer {
    type Err = String;
    fn from_str(text: &str) -> Result<Peer, String> {
        let (name, path) = text.split_once('=').ok_or("NAME=PATH is wanted")?;
        let path = Path::new(path).canonicalize().map_err(|error| format!("{path}: {error}"))?;
        Ok(Peer { name: name.to_owned(), path })
    }
}

/// The number of threads of a contender with "all threads".
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(8)
}

/// All contenders. The last one is the floor that all are compared with.
pub(crate) fn all(peers: &[Peer]) -> Result<Vec<Contender>> {
    debian::need(&[debian::BUSYBOX])?;
    let repot = build::init(build::Arch::X86_64)?;
    let many = processors();
    let init = |name: &str, about: &str, program: &Path, config: String| Contender {
        name: name.to_owned(),
        about: about.to_owned(),
        way: Way::Init { program: program.to_owned(), config },
    };
    let script = |name: &str, about: &str, text| Contender {
        name: name.to_owned(),
        about: about.to_owned(),
        way: Way::Script(text),
    };
    let guest =
        |name: String, about: String, word, rest| Contender { name, about, way: Way::Guest { word, rest } };
    let mut contenders = vec![init("repot-1", "repot, 1 thread", &repot, "mode=move\nthreads=1\n".into())];
    if many > 1 {
        let config = format!("mode=move\nthreads={many}\n");
        contenders.push(init("repot-all", &format!("repot, {many} threads"), &repot, config));
    }
    let config = format!("mode=move\nthreads={many}\nhuge=never\n");
    contenders.push(init("repot-pages", "repot, no large folios", &repot, config));
    contenders.push(init("repot-bind", "repot, mode=bind", &repot, "mode=bind\n".into()));
    for peer in peers {
        // For the init of another commit; other programs do not read it.
        let config = format!("mode=move\nthreads={many}\n");
        contenders.push(init(&peer.name, &peer.name, &peer.path, config));
    }
    contenders.extend([
        guest("classic".into(), "classic algorithm".into(), "classic", vec![]),
        script("cp", "cp -a, then rm", r#"cp -a "$OLD/." "$NEW" && rm -rf "$OLD"/* "$OLD"/.[!.]*"#),
        script(
            "tar",
            "tar | tar, then rm",
            r#"tar -C "$OLD" -cf - . | tar -C "$NEW" -xpf - && rm -rf "$OLD"/* "$OLD"/.[!.]*"#,
        ),
        script(
            "busybox",
            "BusyBox tar | tar, then rm",
            r#"busybox tar -C "$OLD" -cf - . | busybox tar -C "$NEW" -xpf - && busybox rm -rf "$OLD"/* "$OLD"/.[!.]*"#,
        ),
    ]);
    if many > 1 {
        contenders.push(guest(
            "floor-all".into(),
            format!("floor, {many} threads"),
            "floor",
            vec![many.to_string()],
        ));
    }
    contenders.push(guest("floor-1".into(), "floor, 1 thread".into(), "floor", vec!["1".into()]));
    Ok(contenders)
}

/// The named contenders, or all if none is named.
pub(crate) fn chosen(all: Vec<Contender>, names: &[String]) -> Result<Vec<Contender>> {
    if let Some(name) = names.iter().find(|name| all.iter().all(|one| one.name != **name)) {
        let known: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        bail!("no contender {name}; there are {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|one| names.is_empty() || names.contains(&one.name)).collect())
}

impl Contender {
    /// Whether the tree is on another file system afterwards.
    pub(crate) fn moves(&self) -> bool {
        self.name != "repot-bind"
    }

    /// Installs in the old root what every contender needs: an init, the stand-in for the real init, a
    /// configuration.
    pub(crate) fn furnish(&self, arena: &Arena, default_init: &Path) -> Result<()> {
        let (program, config) = match &self.way {
            Way::Init { program, config } => (program.as_path(), config.as_str()),
            Way::Script(_) | Way::Guest { .. } => (default_init, "mode=move\n"),
        };
        let put = |from: &Path, to: &str| -> Result<()> {
            let to = arena.old.join(to);
            std::fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
            Ok(std::fs::set_permissions(&to, Permissions::from_mode(0o755))?)
        };
        put(program, "init")?;
        put(&programs::guest()?, "sbin/init")?;
        write(arena.old.join("etc/repot.conf"), config).context("cannot write the configuration")
    }

    /// The command of a contender that does not run as `/init`.
    pub(crate) fn command(&self, arena: &Arena) -> Result<Option<Command>> {
        Ok(match &self.way {
            Way::Init { .. } => None,
            Way::Script(text) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", text]).env("OLD", &arena.old).env("NEW", &arena.new);
                Some(shell)
            }
            Way::Guest { word, rest } => {
                let mut program = Command::new(programs::guest()?);
                program.arg(word).arg(&arena.old).arg(&arena.new).args(rest);
                Some(program)
            }
        })
    }
}
