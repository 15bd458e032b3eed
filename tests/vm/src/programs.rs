//! The programs of the images, each built once per run, when the first boot needs it.

use anyhow::{Result, anyhow};
use repot_harness::build::{self, Arch};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

type Built = OnceLock<Result<PathBuf, String>>;

/// The init under test.
pub(crate) fn init() -> Result<&'static Path> {
    static INIT: Built = OnceLock::new();
    once(&INIT, || build::init(Arch::X86_64))
}

/// The init that can also unpack payloads.
pub(crate) fn init_payload() -> Result<&'static Path> {
    static INIT: Built = OnceLock::new();
    once(&INIT, || build::init_payload(Arch::X86_64))
}

/// The init of another project: the example of the library.
pub(crate) fn example() -> Result<&'static Path> {
    static INIT: Built = OnceLock::new();
    once(&INIT, build::example)
}

/// The real init of the guests.
pub(crate) fn probe() -> Result<&'static Path> {
    static PROBE: Built = OnceLock::new();
    once(&PROBE, || build::guest("repot-probe"))
}

/// The tool as it is released.
pub(crate) fn tool() -> Result<&'static Path> {
    static TOOL: Built = OnceLock::new();
    once(&TOOL, build::tool)
}

fn once(built: &'static Built, build: impl FnOnce() -> Result<PathBuf>) -> Result<&'static Path> {
    // Every boot that needs the program fails with the error of the one build.
    let built = built.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}
