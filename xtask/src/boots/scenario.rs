//! One file of `tests/boots`: an image, the machines it is booted on, and what must be seen afterwards.

use super::expect::Expect;
use crate::place;
use anyhow::{Context, Result};
use serde::Deserialize;
use xtask::steps::Step;

/// A scenario as it is written. Everything but `about` has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    #[serde(skip)]
    pub(super) name: String,
    /// One sentence: what would be wrong if this failed.
    #[allow(dead_code, reason = "for the reader of the file")]
    about: String,
    #[serde(default = "every_kernel")]
    kernels: Vec<String>,
    #[serde(default = "both_roots")]
    rootfstype: Vec<String>,
    /// Handed to the init as `repot.mode=`; "none" hands nothing.
    #[serde(default = "moved")]
    mode: Vec<String>,
    /// More of the kernel command line.
    #[serde(default)]
    append: String,
    /// MiB.
    #[serde(default = "enough")]
    pub(super) memory: u32,
    #[serde(default = "two")]
    pub(super) cpus: u32,
    #[serde(default)]
    pub(super) tree: Tree,
    /// What the archive is compressed with.
    #[serde(default)]
    pub(super) compress: Compress,
    /// The archive is one of `repot pack`, which has an end marker, and is cut off here.
    #[serde(default)]
    pub(super) cut: Option<Cut>,
    /// `/init` is the probe itself, and executes what its last step says.
    #[serde(default)]
    pub(super) steps: Vec<Step>,
    /// Where in the image the init under test lies, when there are no steps.
    #[serde(default = "first")]
    pub(super) init: String,
    /// The root is packed as a payload.
    #[serde(default)]
    pub(super) payload: bool,
    /// The payload says that it needs fewer pages than it does.
    #[serde(default)]
    pub(super) understated: bool,
    /// No init under test: `/init` is a link to the probe.
    #[serde(default)]
    pub(super) bare: bool,
    /// The image has no `/sbin/init`.
    #[serde(default)]
    pub(super) no_init: bool,
    /// The image has a copy of the probe here too.
    #[serde(default)]
    pub(super) also_init: Vec<String>,
    /// The image has neither `/dev/console` nor `/dev/null`.
    #[serde(default)]
    pub(super) no_console: bool,
    /// `/etc/repot.conf`.
    #[serde(default)]
    pub(super) config: Option<String>,
    /// What must be seen; tables named after a mode stand for that mode alone.
    expect: toml::Table,
}

/// What is in the image besides what every image has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tree {
    /// Nothing.
    #[default]
    Small,
    /// Every kind of entry, odd names, owners, modes, hard links.
    Hostile,
    /// One file of 200 MiB.
    Large,
    /// One file of 48 MiB, behind everything else in the archive.
    Heavy,
    /// 20,000 empty files, behind everything else in the archive.
    Crowd,
    /// A megabyte that no compression makes smaller, behind everything else in the archive.
    Tail,
}

/// How an archive is compressed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Compress {
    #[default]
    None,
    Gzip,
    Zstd,
}

/// Where an archive is cut off: four fifths in, behind all that is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cut {
    /// Where a member ends, if it is not compressed.
    Between,
    /// In the contents of a file, or in the compressed stream.
    Inside,
}

fn every_kernel() -> Vec<String> {
    crate::kernels::series().into_iter().map(str::to_owned).collect()
}
fn both_roots() -> Vec<String> {
    vec!["ramfs".to_owned(), "tmpfs".to_owned()]
}
fn moved() -> Vec<String> {
    vec!["move".to_owned()]
}
fn enough() -> u32 {
    256
}
fn first() -> String {
    "init".to_owned()
}
fn two() -> u32 {
    2
}

/// One boot of a scenario.
pub(super) struct Case<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) kernel: String,
    pub(super) rootfstype: String,
    pub(super) mode: String,
}

impl Scenario {
    /// What of the image may be executed besides what every image has.
    pub(super) fn executed(&self) -> impl Iterator<Item = &str> {
        self.also_init.iter().chain([&self.init]).map(String::as_str)
    }

    /// Every boot of it.
    pub(super) fn cases(&self) -> Vec<Case<'_>> {
        let mut cases = Vec::new();
        for kernel in &self.kernels {
            for rootfstype in &self.rootfstype {
                for mode in &self.mode {
                    let (kernel, rootfstype, mode) = (kernel.clone(), rootfstype.clone(), mode.clone());
                    cases.push(Case { scenario: self, kernel, rootfstype, mode });
                }
            }
        }
        cases
    }
}

impl Case<'_> {
    /// What the filter and the reader know it by.
    pub(super) fn name(&self) -> String {
        format!("{}/{}-{}-{}", self.scenario.name, self.kernel, self.rootfstype, self.mode)
    }

    /// Its part of the kernel command line.
    pub(super) fn append(&self) -> String {
        let mode = if self.mode == "none" { String::new() } else { format!("repot.mode={} ", self.mode) };
        format!("rootfstype={} {mode}{}", self.rootfstype, self.scenario.append)
    }

    /// What must be seen in this mode.
    pub(super) fn expect(&self) -> Result<Expect> {
        let mut all = self.scenario.expect.clone();
        let mut own = toml::Table::new();
        for mode in ["none", "auto", "move", "bind", "stay"] {
            let table = all.remove(mode);
            if mode == self.mode {
                own = table.and_then(|value| value.as_table().cloned()).unwrap_or_default();
            }
        }
        all.extend(own);
        all.try_into().with_context(|| format!("tests/boots/{}.toml: expect", self.scenario.name))
    }
}

/// All scenarios, by name; every expectation is read, so that a slip fails before the first boot.
pub(super) fn all() -> Result<Vec<Scenario>> {
    let folder = place::checkout().join("tests/boots");
    let mut scenarios = Vec::new();
    for item in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = item?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".toml")) else {
            continue;
        };
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut scenario: Scenario =
            toml::from_str(&text).with_context(|| format!("tests/boots/{name}.toml"))?;
        name.clone_into(&mut scenario.name);
        for case in scenario.cases() {
            case.expect()?;
        }
        scenarios.push(scenario);
    }
    scenarios.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(scenarios)
}
