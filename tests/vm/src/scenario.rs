//! One file of `tests/vm/boots`: an image, the machines that boot it, and what is expected afterwards.

use crate::case::Case;
use crate::image::Image;
use crate::programs;
use anyhow::{Context, Result, anyhow};
use repot_harness::{debian, kernels, place};
use repot_probe::steps::Step;
use serde::Deserialize;
use std::sync::OnceLock;

/// A scenario as it is written. Everything but `about` has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    #[serde(skip)]
    pub(crate) name: String,
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
    pub(crate) append: String,
    /// MiB.
    #[serde(default = "enough")]
    pub(crate) memory: u32,
    #[serde(default = "two")]
    pub(crate) cpus: u32,
    #[serde(default)]
    pub(crate) tree: Tree,
    /// What the archive is compressed with.
    #[serde(default)]
    pub(crate) compress: Compress,
    /// The archive is one of `repot pack`, which has an end marker, and is cut off here.
    #[serde(default)]
    pub(crate) cut: Option<Cut>,
    /// `/init` is the probe itself, and executes what its last step says.
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    /// Where in the image the init under test lies, when there are no steps.
    #[serde(default = "first")]
    pub(crate) init: String,
    /// The root is packed as a payload.
    #[serde(default)]
    pub(crate) payload: bool,
    /// The payload says that it needs fewer pages than it does.
    #[serde(default)]
    pub(crate) understated: bool,
    /// No init under test: `/init` is a link to the probe.
    #[serde(default)]
    pub(crate) bare: bool,
    /// The image has no `/sbin/init`.
    #[serde(default)]
    pub(crate) no_init: bool,
    /// The image has a copy of the probe here too.
    #[serde(default)]
    pub(crate) also_init: Vec<String>,
    /// The image has neither `/dev/console` nor `/dev/null`.
    #[serde(default)]
    pub(crate) no_console: bool,
    /// `/etc/repot.conf`.
    #[serde(default)]
    pub(crate) config: Option<String>,
    /// What is expected. A table named after a mode applies to that mode alone.
    pub(crate) expect: toml::Table,
    #[serde(skip)]
    image: OnceLock<Result<Image, String>>,
}

/// What is in the image besides what every image has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tree {
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
pub(crate) enum Compress {
    #[default]
    None,
    Gzip,
    Zstd,
}

/// Where an archive is cut off: four fifths in, behind all that is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cut {
    /// Where a member ends, if it is not compressed.
    Between,
    /// In the contents of a file, or in the compressed stream.
    Inside,
}

fn every_kernel() -> Vec<String> {
    kernels::series().into_iter().map(str::to_owned).collect()
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

impl Scenario {
    /// What of the image may be executed besides what every image has.
    pub(crate) fn executed(&self) -> impl Iterator<Item = &str> {
        self.also_init.iter().chain([&self.init]).map(String::as_str)
    }

    /// Each of its boots.
    pub(crate) fn cases(&'static self) -> Vec<Case> {
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

    /// Its image, built by the first boot that needs it.
    pub(crate) fn image(&self) -> Result<&Image> {
        let build = || {
            debian::need_root("building the images of the boots")?;
            let init = if self.payload { programs::init_payload()? } else { programs::init()? };
            Image::build(self, init, programs::probe()?)
        };
        let image = self.image.get_or_init(|| build().map_err(|error| format!("{error:#}")));
        image.as_ref().map_err(|error| anyhow!("cannot build the image of {}: {error}", self.name))
    }
}

/// All scenarios, by name. All expectations are parsed too, so that a typo fails before the first boot.
pub(crate) fn all() -> Result<&'static [Scenario]> {
    static ALL: OnceLock<Vec<Scenario>> = OnceLock::new();
    let read = read()?;
    let all = ALL.get_or_init(|| read);
    all.iter().flat_map(Scenario::cases).try_for_each(|case| case.expect().map(drop))?;
    Ok(all)
}

fn read() -> Result<Vec<Scenario>> {
    let folder = place::checkout().join("tests/vm/boots");
    let mut scenarios = Vec::new();
    for item in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = item?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".toml")) else {
            continue;
        };
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut scenario: Scenario =
            toml::from_str(&text).with_context(|| format!("tests/vm/boots/{name}.toml"))?;
        name.clone_into(&mut scenario.name);
        scenarios.push(scenario);
    }
    scenarios.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(scenarios)
}
