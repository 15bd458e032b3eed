//! The binary that becomes `/init`: built in, or found on disk.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use repot::facts::program::{Architecture, Program};

use crate::programs;

/// The init, empty unless this program was built with `REPOT_EMBED`.
static EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));
/// The init for payloads, empty unless this program was built with `REPOT_EMBED_PAYLOAD`.
static EMBEDDED_PAYLOAD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init-payload"));

/// The runner, empty unless this program was built with `REPOT_EMBED_RUN`.
static EMBEDDED_RUN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/run"));

/// repot's `/init`.
#[derive(Debug, Clone)]
pub struct InitBinary {
    /// The program.
    pub bytes: Arc<[u8]>,
    /// Where it comes from, for messages.
    pub origin: String,
    /// The architecture that it is built for; `None` for a script.
    pub architecture: Option<Architecture>,
}

/// The init of `--init`, else of `REPOT_INIT`, else the built-in one, else the first one in the usual places.
pub fn find(given: Option<&Path>) -> Result<InitBinary> {
    let named = given.map(Path::to_path_buf).or_else(|| env::var_os("REPOT_INIT").map(PathBuf::from));
    if let Some(path) = named {
        return load(&path);
    }
    if !EMBEDDED.is_empty() {
        return check(EMBEDDED.into(), "built into this program".to_string());
    }
    let places = places();
    if let Some(path) = places.iter().find(|path| path.is_file()) {
        return load(path);
    }
    let looked: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
    bail!(
        "no repot init found: this program has none built in, and none of these exist: {}. Build it with \
         `cargo xtask dist` in the source tree of repot, or use --init FILE",
        looked.join(", ")
    );
}

/// The init that unpacks payloads, from the same places. Its environment variable is `REPOT_INIT_PAYLOAD`.
pub fn find_for_payload(given: Option<&Path>) -> Result<InitBinary> {
    let named = given.map(Path::to_path_buf).or_else(|| env::var_os("REPOT_INIT_PAYLOAD").map(PathBuf::from));
    if named.is_none() && !EMBEDDED_PAYLOAD.is_empty() {
        return check(EMBEDDED_PAYLOAD.into(), "built into this program".to_string());
    }
    let beside = |place: &PathBuf| {
        place.with_file_name(if place.ends_with("repot-init") {
            "repot-init-payload"
        } else {
            "init-payload"
        })
    };
    let places: Vec<_> = places().iter().map(beside).collect();
    let Some(path) = named.or_else(|| places.iter().find(|path| path.is_file()).cloned()) else {
        let looked: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
        bail!(
            "no repot init that unpacks payloads found: none of these exist: {}. Build it with `cargo xtask dist` \
             in the source tree of repot, or use --init FILE",
            looked.join(", ")
        );
    };
    let init = load(&path)?;
    if init.architecture.is_some() && !features(&init.bytes).contains(&PAYLOAD) {
        bail!(
            "{} is not a repot init that unpacks payloads: use the init-payload that `cargo xtask dist` builds",
            init.origin
        );
    }
    Ok(init)
}

/// Unpacks payloads.
pub const PAYLOAD: &str = "payload";
/// Knows `chain=`.
pub const CHAIN: &str = "chain";
/// Reads more than one attribute manifest.
pub const MANIFESTS: &str = "manifests";

/// What a repot init can do: the words between the name and the semicolon in [`repot::runtime::FEATURES`].
#[must_use]
pub fn features(bytes: &[u8]) -> Vec<&'static str> {
    let name = b"repot-features: ";
    let starts = bytes.windows(name.len()).enumerate().filter(|(_, window)| window == name);
    let lists = starts.filter_map(|(at, _)| {
        let rest = &bytes[at + name.len()..];
        // A program that only looks for the name has no list behind it.
        let end = rest.iter().take(1024).position(|byte| *byte == b';')?;
        std::str::from_utf8(&rest[..end]).ok()
    });
    let words: Vec<&str> = lists.flat_map(|list| list.split(' ')).collect();
    [PAYLOAD, CHAIN, MANIFESTS].into_iter().filter(|feature| words.contains(feature)).collect()
}

/// The runner of images that hold one program: `REPOT_RUN`, else the built-in one, else the first one beside
/// the inits.
pub fn find_runner() -> Result<InitBinary> {
    if let Some(path) = env::var_os("REPOT_RUN") {
        return load(Path::new(&path));
    }
    if !EMBEDDED_RUN.is_empty() {
        return check(EMBEDDED_RUN.into(), "built into this program".to_string());
    }
    let beside = |place: &PathBuf| {
        place.with_file_name(if place.ends_with("repot-init") { "repot-run" } else { "run" })
    };
    let places: Vec<_> = places().iter().map(beside).collect();
    if let Some(path) = places.iter().find(|path| path.is_file()) {
        return load(path);
    }
    let looked: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
    bail!(
        "no repot runner found: none of these exist: {}. Build it with `cargo xtask dist` in the source tree of \
         repot, or set REPOT_RUN",
        looked.join(", ")
    );
}

/// Whether a program is a repot init: an ELF program that contains the path of the configuration.
#[must_use]
pub fn is_repot(bytes: &[u8]) -> bool {
    let name = b"etc/repot.conf";
    bytes.starts_with(b"\x7fELF") && bytes.windows(name.len()).any(|window| window == name)
}

fn places() -> Vec<PathBuf> {
    let arch = env::consts::ARCH;
    let mut places = Vec::new();
    if let Some(directory) = env::current_exe().ok().as_deref().and_then(Path::parent) {
        places.push(directory.join("repot-init"));
        // For target/release/repot this is target/dist/ARCH/init.
        places.extend(directory.parent().map(|target| target.join("dist").join(arch).join("init")));
    }
    places.push(PathBuf::from("/usr/lib/repot/init"));
    places.push(Path::new("target/dist").join(arch).join("init"));
    places
}

fn load(path: &Path) -> Result<InitBinary> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the init {}", path.display()))?;
    check(bytes.into(), path.display().to_string())
}

fn check(bytes: Arc<[u8]>, origin: String) -> Result<InitBinary> {
    match programs::of_bytes(&bytes) {
        Ok(Program { architecture: Some(_), interpreter: Some(interpreter) }) => bail!(
            "{origin} is dynamically linked (it needs {}), but the init must be static",
            interpreter.escape_ascii()
        ),
        Ok(Program { architecture, .. }) => Ok(InitBinary { bytes, origin, architecture }),
        Err(why) => bail!("{origin} {why}"),
    }
}
