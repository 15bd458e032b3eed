//! The programs of the images, each built once per run, when the first boot needs it.

use anyhow::{Result, anyhow};
use repot_harness::build::{self, Arch};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

type Built = OnceLock<Result<PathBuf, String>>;

/// One for each architecture, in the order of the enum.
type ForEach<T> = [T; Arch::ALL.len()];

/// The init under test.
pub(crate) fn init() -> Result<&'static Path> {
    init_for(Arch::X86_64)
}

/// The init under test for another architecture.
pub(crate) fn init_for(arch: Arch) -> Result<&'static Path> {
    static INITS: ForEach<Built> = [const { OnceLock::new() }; Arch::ALL.len()];
    once(&INITS[arch as usize], || build::init(arch))
}

/// The init that can also unpack payloads.
pub(crate) fn init_payload() -> Result<&'static Path> {
    init_payload_for(Arch::X86_64)
}

/// The init that can also unpack payloads, for another architecture.
pub(crate) fn init_payload_for(arch: Arch) -> Result<&'static Path> {
    static INITS: ForEach<Built> = [const { OnceLock::new() }; Arch::ALL.len()];
    once(&INITS[arch as usize], || build::init_payload(arch))
}

/// The init of another project: the example of the library.
pub(crate) fn example() -> Result<&'static Path> {
    static INIT: Built = OnceLock::new();
    once(&INIT, build::example)
}

/// The real init of the guests.
pub(crate) fn probe() -> Result<&'static Path> {
    probe_for(Arch::X86_64)
}

/// The real init of the guests of another architecture.
pub(crate) fn probe_for(arch: Arch) -> Result<&'static Path> {
    static PROBES: ForEach<Built> = [const { OnceLock::new() }; Arch::ALL.len()];
    once(&PROBES[arch as usize], || build::guest_for(arch, "repot-probe"))
}

/// The tool as it is released.
pub(crate) fn tool() -> Result<&'static Path> {
    static TOOL: Built = OnceLock::new();
    once(&TOOL, || build::tool(&[Arch::X86_64]))
}

fn once(built: &'static Built, build: impl FnOnce() -> Result<PathBuf>) -> Result<&'static Path> {
    // Every boot that needs the program fails with the error of the one build.
    let built = built.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}
