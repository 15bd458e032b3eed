//! One file of `tests/vm/boots`: an image, the machines that boot it, and what is expected afterwards.

use crate::image::Image;
use crate::programs;
use anyhow::{Context, Result, anyhow};
use repot_harness::arch::Arch;
use repot_harness::{debian, kernels, place};
use repot_probe::steps::Step;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A scenario file. Everything but `about` has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    #[serde(skip)]
    pub(crate) name: String,
    /// One sentence: what is broken if this fails.
    #[allow(dead_code, reason = "for the reader of the file")]
    about: String,
    #[serde(default = "every_kernel")]
    pub(crate) kernels: Vec<String>,
    #[serde(default = "both_roots")]
    pub(crate) rootfstype: Vec<String>,
    /// The value of `repot.mode=`. "none" sets no mode.
    #[serde(default = "moved")]
    pub(crate) mode: Vec<String>,
    /// Appended to the kernel command line. `{digest}` is the digest of the payload.
    #[serde(default)]
    pub(crate) append: String,
    /// MiB.
    #[serde(default = "enough")]
    pub(crate) memory: u32,
    #[serde(default = "two")]
    pub(crate) cpus: u32,
    #[serde(default)]
    pub(crate) tree: Tree,
    /// How the archive is compressed.
    #[serde(default)]
    pub(crate) compress: Compress,
    /// The archive is written as by `repot pack`, with an end marker, and truncated here.
    #[serde(default)]
    pub(crate) cut: Option<Cut>,
    /// If there are steps, `/init` is the probe, and the last step executes the init under test.
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    /// The path of the init under test in the image, if there are no steps.
    #[serde(default = "first")]
    pub(crate) init: String,
    /// The init under test is the example of the library, with `std`.
    #[serde(default)]
    pub(crate) example: bool,
    /// The root is packed as a payload.
    #[serde(default)]
    pub(crate) payload: bool,
    /// The image has the modules for zram of this scenario's kernels, or of another one.
    #[serde(default)]
    pub(crate) driver: Driver,
    /// The index of the payload claims fewer pages than it needs.
    #[serde(default)]
    pub(crate) understated: bool,
    /// Without an init under test: `/init` is a copy of the probe.
    #[serde(default)]
    pub(crate) bare: bool,
    /// The image has no `/sbin/init`.
    #[serde(default)]
    pub(crate) no_init: bool,
    /// More paths with a copy of the probe.
    #[serde(default)]
    pub(crate) also_init: Vec<String>,
    /// The image has a policy of SELinux, `/policy`.
    #[serde(default)]
    pub(crate) policy: bool,
    /// What `/dev/console` is. Only with the device there is a `/dev/null`.
    #[serde(default)]
    pub(crate) console: Console,
    /// `/etc/repot.conf`.
    #[serde(default)]
    pub(crate) config: Option<String>,
    /// The archive is written as by `repot pack`, with an end marker.
    #[serde(default)]
    pub(crate) marked: bool,
    /// Segments before and behind the image: paths and contents of files. The contents "PROBE" are a copy of
    /// the probe.
    #[serde(default)]
    pub(crate) front: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) behind: BTreeMap<String, String>,
    /// The real init overwrites the files of [`Tree::Secret`], says so, and keeps running.
    #[serde(default)]
    pub(crate) forgets: bool,
    /// What is expected. A table named after a mode applies to that mode alone.
    pub(crate) expect: toml::Table,
    /// For each architecture, in the order of the enum.
    #[serde(skip)]
    images: [OnceLock<Result<Image, String>>; Arch::ALL.len()],
}

/// What the image contains besides the two inits and the standard directories.
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
    /// One file of 120 MiB, which compresses well as a whole, but not page by page.
    Repeated,
    /// One file of 48 MiB at the end of the archive.
    Heavy,
    /// 20,000 empty files at the end of the archive.
    Crowd,
    /// 1 MiB of incompressible files at the end of the archive.
    Tail,
    /// 12 MiB of files full of markers, which are looked for in the memory of the guest.
    Secret,
}

/// What is called `/dev/console`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Console {
    #[default]
    Device,
    /// A symbolic link that leads nowhere.
    Missing,
    /// An empty file.
    File,
    /// A FIFO.
    Fifo,
}

/// Which modules an image has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Driver {
    /// None.
    #[default]
    None,
    /// Those of the kernels that boot it.
    Own,
    /// Those of 6.1 alone.
    Other,
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

/// Where an archive is truncated, after four fifths, behind all programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cut {
    /// Between two members, if the archive is not compressed.
    Between,
    /// Inside the contents of a file, or inside the compressed stream.
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
    /// Programs of the image that may be executed, so that their access times may change.
    pub(crate) fn executed(&self) -> impl Iterator<Item = &str> {
        self.also_init.iter().chain([&self.init]).map(String::as_str)
    }

    /// The folders of modules in its image.
    pub(crate) fn driver(&self) -> Result<Vec<PathBuf>> {
        match self.driver {
            Driver::None => Ok(Vec::new()),
            Driver::Own => self.kernels.iter().map(|series| kernels::modules(series)).collect(),
            Driver::Other => kernels::modules("6.1").map(|folder| vec![folder]),
        }
    }

    /// Its image for an architecture, built by the first boot that needs it.
    pub(crate) fn image(&self, arch: Arch) -> Result<&Image> {
        let build = || {
            debian::need_root("building the images of the boots")?;
            let init = match self {
                Scenario { payload: true, .. } => programs::init_payload_for(arch)?,
                Scenario { example: true, .. } => programs::example()?,
                Scenario { .. } => programs::init_for(arch)?,
            };
            Image::build(self, arch, init, programs::probe_for(arch)?)
        };
        let image = self.images[arch as usize].get_or_init(|| build().map_err(|error| format!("{error:#}")));
        image.as_ref().map_err(|error| anyhow!("cannot build the image of {}: {error}", self.name))
    }
}

/// All scenarios, by name.
pub(crate) fn all() -> Result<&'static [Scenario]> {
    static ALL: OnceLock<Vec<Scenario>> = OnceLock::new();
    let read = read()?;
    Ok(ALL.get_or_init(|| read))
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
