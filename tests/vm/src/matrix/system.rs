//! One file of `tests/vm/matrix`: a root, the boots of it, and what is expected to fail in them.

use super::outcome::Outcome;
use anyhow::{Context, Result, ensure};
use repot_harness::place;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A system.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct System {
    #[serde(skip)]
    pub(super) name: String,
    /// Where it comes in the page.
    pub(super) order: u32,
    /// One sentence for the page.
    pub(super) about: String,
    #[serde(default)]
    pub(super) base: Base,
    /// Debian packages of a Debian root.
    #[serde(default)]
    pub(super) packages: Vec<String>,
    /// Programs of this machine that are copied with their libraries, and the Debian packages that have them.
    #[serde(default)]
    pub(super) programs: BTreeMap<String, String>,
    /// Modules of the kernels of its boots, with those that they need.
    #[serde(default)]
    pub(super) modules: Vec<String>,
    /// A shell script that changes the root; `$FILES` is `tests/vm/matrix`.
    #[serde(default)]
    pub(super) setup: String,
    /// Whether the root is a plain archive by cpio, whose own `/init` executes `/repot`.
    #[serde(default)]
    pub(super) own_init: bool,
    /// More options of `repot pack`.
    #[serde(default)]
    pub(super) pack: Vec<String>,
    /// A shell script that changes the file `image` at last.
    #[serde(default)]
    pub(super) finish: String,
    /// For a system whose root is on a disk: a shell script that makes `image`, the initramfs that finds the
    /// disk, and `medium`, the disk, from `root`. `plain` boots the image as it is, the other modes boot it
    /// after `repot append`.
    #[serde(default)]
    pub(super) medium: String,
    /// The script of `rows` that the guest runs.
    pub(super) rows: String,
    /// A shell script that adds files to the disk of the rows, in their folder. `$IMAGES` is the folder
    /// of the image, `$KERNEL` the kernel.
    #[serde(default)]
    pub(super) disk: String,
    /// Appended to the kernel command line.
    #[serde(default)]
    pub(super) append: String,
    /// More options of QEMU.
    #[serde(default)]
    pub(super) qemu: Vec<String>,
    /// Size in MiB of an empty disk with the serial number `swap`.
    #[serde(default)]
    pub(super) swap: u64,
    /// Memory of the guest in MiB.
    pub(super) memory: u32,
    /// Boots, each as `MODE-KERNEL`.
    boots: Vec<String>,
    /// Those of them that are tests.
    #[serde(default)]
    sample: Vec<String>,
    /// Why there is no boot in a mode.
    #[serde(default)]
    pub(super) not_run: BTreeMap<String, String>,
    /// Rows that must fail, by boot. All others must work.
    #[serde(default)]
    fails: BTreeMap<String, Vec<String>>,
    /// The last of them is of an image with a payload.
    #[serde(skip)]
    pub(super) images: [OnceLock<Result<(), String>>; 2],
    /// The text of the file.
    #[serde(skip)]
    pub(super) text: String,
}

/// What a root is made from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Base {
    /// BusyBox and its links.
    #[default]
    Busybox,
    /// A minimal root of Debian trixie.
    Trixie,
    /// One of Debian bullseye.
    Bullseye,
}

impl Base {
    /// The suite of a Debian root.
    pub(super) fn suite(self) -> Option<&'static str> {
        match self {
            Base::Busybox => None,
            Base::Trixie => Some("trixie"),
            Base::Bullseye => Some("bullseye"),
        }
    }
}

/// The modes of a boot, in the order of the page. `plain` is without repot.
pub(super) const MODES: [&str; 4] = ["plain", "move", "bind", "payload"];

/// One boot of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) mode: String,
    pub(super) kernel: String,
    /// It is a test.
    pub(super) sample: bool,
}

/// All systems, in the order of the page.
///
/// # Errors
/// If a file cannot be read or names a mode that does not exist.
pub(super) fn all() -> Result<Vec<Arc<System>>> {
    let folder = place::checkout().join("tests/vm/matrix");
    let mut systems = Vec::new();
    for item in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = item?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            systems.push(Arc::new(read(&path).with_context(|| path.display().to_string())?));
        }
    }
    systems.sort_by(|one, other| (one.order, &one.name).cmp(&(other.order, &other.name)));
    Ok(systems)
}

fn read(path: &Path) -> Result<System> {
    let text = std::fs::read_to_string(path)?;
    let mut system: System = toml::from_str(&text)?;
    system.name = path.file_stem().context("a file has a name")?.to_string_lossy().into_owned();
    system.text = text;
    for boot in system.boots.iter().chain(&system.sample).chain(system.fails.keys()) {
        let mode = boot.split_once('-').map(|(mode, _)| mode);
        ensure!(mode.is_some_and(|mode| MODES.contains(&mode)), "{boot} is not MODE-KERNEL");
        ensure!(system.boots.contains(boot), "{boot} is not among the boots");
    }
    Ok(system)
}

impl System {
    /// Everything that a result depends on, as text: not what the page says, nor what is expected.
    pub(super) fn parts(&self) -> String {
        let scripts = [&self.setup, &self.finish, &self.medium, &self.disk, &self.append, &self.rows];
        let packages = (&self.packages, &self.programs, &self.modules, &self.pack, &self.qemu);
        format!("{:?} {scripts:?} {packages:?} {} {} {}", self.base, self.own_init, self.memory, self.swap)
    }

    /// Its boots.
    pub(super) fn turns(&self) -> impl Iterator<Item = Turn> {
        self.boots.iter().filter_map(|boot| {
            let (mode, kernel) = boot.split_once('-')?;
            Some(Turn {
                mode: mode.to_owned(),
                kernel: kernel.to_owned(),
                sample: self.sample.contains(boot),
            })
        })
    }

    /// What is not as the file expects: a row that fails, or one that must fail and does not.
    pub(super) fn unexpected(&self, turn: &Turn, outcome: &Outcome) -> Vec<String> {
        let must_fail = self.fails.get(&format!("{}-{}", turn.mode, turn.kernel));
        let expected = |row: &str| must_fail.is_some_and(|rows| rows.iter().any(|name| name == row));
        let mut lines = Vec::new();
        for row in &outcome.rows {
            match &row.failed {
                Some(message) if !expected(&row.name) => lines.push(format!("{} fails: {message}", row.name)),
                None if expected(&row.name) => {
                    lines.push(format!("{} works, but is expected to fail", row.name))
                }
                _ => {}
            }
        }
        for name in must_fail.into_iter().flatten() {
            if outcome.rows.iter().all(|row| row.name != *name) {
                lines.push(format!("{name} was not tried"));
            }
        }
        lines
    }
}

impl Turn {
    /// What the filter matches.
    pub(super) fn name(&self, system: &System) -> String {
        format!("{}/{}-{}", system.name, self.mode, self.kernel)
    }
}
