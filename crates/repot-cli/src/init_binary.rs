//! repot's own programs for an image: the two inits and the runner, of the architecture of the root.
//!
//! They are named by an option or a variable, built in, or found on disk.

use std::borrow::Cow;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use repot::facts::program::{Architecture, Program};

use crate::{architecture, programs};

/// The built-in programs: architecture, name, bytes. Empty unless this program was built with `REPOT_EMBED`.
static EMBEDDED: &[(&str, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// One of repot's programs.
#[derive(Debug, Clone)]
pub struct InitBinary {
    /// The program.
    pub bytes: Arc<[u8]>,
    /// Where it comes from, for messages.
    pub origin: String,
    /// The architecture that it is built for; `None` for a script.
    pub architecture: Option<Architecture>,
    /// What to know about the choice.
    pub warning: Option<String>,
}

/// Which program is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Init,
    Payload,
    Runner,
}

impl Kind {
    /// Its name in a folder of an architecture.
    fn file(self) -> &'static str {
        match self {
            Kind::Init => "init",
            Kind::Payload => "init-payload",
            Kind::Runner => "run",
        }
    }

    /// The variable that names it.
    fn variable(self) -> &'static str {
        match self {
            Kind::Init => "REPOT_INIT",
            Kind::Payload => "REPOT_INIT_PAYLOAD",
            Kind::Runner => "REPOT_RUN",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Kind::Init => "init",
            Kind::Payload => "init that unpacks payloads",
            Kind::Runner => "runner",
        }
    }
}

/// The init for a root whose programs have the architecture `target`, or that of this tool if it is unknown:
/// `--init`, else `REPOT_INIT`, a file or a folder as `target/dist`, else a built-in one, else the first one
/// in the usual places.
pub fn find(given: Option<&Path>, target: Option<Architecture>) -> Result<InitBinary> {
    match given {
        Some(path) => load(path),
        None => search(Kind::Init, target, target.is_some()),
    }
}

/// The program for an architecture by itself, whatever root it will be for: the init, the init that unpacks
/// payloads if `payload`, or the runner if `run`.
pub fn alone(payload: bool, run: bool, target: Option<Architecture>) -> Result<InitBinary> {
    match (payload, run) {
        (true, _) => unpacks(search(Kind::Payload, target, false)?),
        (_, true) => search(Kind::Runner, target, false),
        (false, false) => search(Kind::Init, target, false),
    }
}

/// The init that unpacks payloads, from the same places. Its environment variable is `REPOT_INIT_PAYLOAD`,
/// else `REPOT_INIT` if that is a folder or an init that unpacks payloads.
pub fn find_for_payload(given: Option<&Path>, target: Option<Architecture>) -> Result<InitBinary> {
    let init = match given {
        Some(path) => load(path)?,
        None => search(Kind::Payload, target, target.is_some())?,
    };
    unpacks(init)
}

/// The init, if it unpacks payloads.
fn unpacks(init: InitBinary) -> Result<InitBinary> {
    if init.architecture.is_some() && !features(&init.bytes).contains(&PAYLOAD) {
        bail!(
            "{} is not a repot init that unpacks payloads: use the init-payload that `cargo xtask dist` builds",
            init.origin
        );
    }
    Ok(init)
}

/// The runner of images that hold one program, from the same places. Its environment variable is `REPOT_RUN`.
pub fn find_runner(target: Option<Architecture>) -> Result<InitBinary> {
    search(Kind::Runner, target, target.is_some())
}

/// The architectures whose init is built in.
#[must_use]
pub fn built_in() -> Vec<&'static str> {
    let inits = EMBEDDED.iter().filter(|(_, name, _)| *name == Kind::Init.file());
    inits.map(|(arch, ..)| *arch).collect()
}

/// Looks for a program. `of_root` is whether the architecture is that of a root.
fn search(kind: Kind, target: Option<Architecture>, of_root: bool) -> Result<InitBinary> {
    let known = match target {
        // One that was named is known.
        Some(target) => architecture::of(target).with_context(|| {
            let name = architecture::name(target);
            format!(
                "the root is for {name}, for which repot has no {}: build one, and use --init FILE",
                kind.noun()
            )
        })?,
        None => architecture::own().context("repot is not released for this machine: use --init FILE")?,
    };
    if let Some(found) = by_variable(kind, known.name, target, of_root)? {
        return Ok(found);
    }
    let looked = places(kind, known.name);
    let of = |name: &str, places: &[PathBuf]| -> Result<Option<InitBinary>> {
        if let Some((.., bytes)) =
            EMBEDDED.iter().find(|(arch, file, _)| (*arch, *file) == (name, kind.file()))
        {
            return check(unpack(bytes)?, "built into this program".to_string()).map(Some);
        }
        let suits = |init: &InitBinary| {
            init.architecture.and_then(architecture::of).is_none_or(|own| own.name == name)
        };
        let mut found = places.iter().filter(|path| path.is_file()).map(|path| load(path));
        found.find(|init| init.as_ref().map_or(true, suits)).transpose()
    };
    if let Some(found) = of(known.name, &looked)? {
        return Ok(found);
    }
    // A kernel of the larger architecture runs both.
    if let Some(larger) = known.runs_on
        && let Some(found) = of(larger, &places(kind, larger))?
    {
        let (noun, name) = (kind.noun(), known.name);
        let warning =
            format!("no {noun} for {name} found, so the one for {larger} is used: boot a {larger} kernel");
        return Ok(InitBinary { warning: Some(warning), ..found });
    }
    bail!(missing(kind, known.name, of_root, &looked))
}

/// The message that no program for the architecture `name` was found.
fn missing(kind: Kind, name: &str, of_root: bool, looked: &[PathBuf]) -> String {
    let looked: Vec<_> = looked.iter().map(|path| path.display().to_string()).collect();
    let (noun, variable) = (kind.noun(), kind.variable());
    let root = if of_root { format!("the root is for {name}: ") } else { String::new() };
    let inside = match built_in()[..] {
        [] => match option_env!("REPOT_NOT_BUILT") {
            Some(why) => format!("this program has none built in ({why})"),
            None => "this program has none built in".to_string(),
        },
        ref inside => format!("this program has those for {} built in", inside.join(", ")),
    };
    let option = match (kind, of_root) {
        (Kind::Runner, _) | (_, false) => format!("set {variable}"),
        (Kind::Init | Kind::Payload, true) => "use --init FILE".to_string(),
    };
    let command = format!("cargo xtask dist --arch {name}");
    let command = match option_env!("REPOT_SOURCES") {
        Some(sources) => format!("`(cd {sources} && {command})`"),
        None => format!("`{command}` in the source tree of repot"),
    };
    format!(
        "{root}no repot {noun} for {name} found: {inside}, and none of these exist: {}. Build it with {command}, or \
         {option}",
        looked.join(", ")
    )
}

/// The program that a variable names: directly, or by the folder of its architecture.
fn by_variable(
    kind: Kind,
    name: &str,
    target: Option<Architecture>,
    of_root: bool,
) -> Result<Option<InitBinary>> {
    let value = |variable: &'static str| {
        env::var_os(variable)
            .filter(|value: &OsString| !value.is_empty())
            .map(|value| (variable, PathBuf::from(value)))
    };
    let general = || value(Kind::Init.variable());
    let Some((variable, path)) = value(kind.variable()).or_else(general) else { return Ok(None) };
    if path.is_dir() {
        let file = path.join(name).join(kind.file());
        ensure!(
            file.is_file(),
            "{variable}={} has no {name}/{}: build it with `cargo xtask dist --arch {name}` in the source tree of \
             repot",
            path.display(),
            kind.file()
        );
        return load(&file).map(Some);
    }
    let found = load(&path)?;
    if variable != kind.variable() && !(kind == Kind::Payload && features(&found.bytes).contains(&PAYLOAD)) {
        // It names the init of images without a payload.
        return Ok(None);
    }
    if let (Some(own), Some(target)) = (found.architecture, target) {
        let same = own == target || architecture::of(own).is_some_and(|known| known.runs(target));
        ensure!(
            same,
            "{variable}={} is for {}, but {} {}: set it to a folder with {name}/{}, or unset it",
            path.display(),
            architecture::name(own),
            if of_root { "the root is for" } else { "--arch is" },
            architecture::name(target),
            kind.file()
        );
    }
    Ok(Some(found))
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

/// Whether a program is a repot init: an ELF program that contains the path of the configuration.
#[must_use]
pub fn is_repot(bytes: &[u8]) -> bool {
    let name = b"etc/repot.conf";
    bytes.starts_with(b"\x7fELF") && bytes.windows(name.len()).any(|window| window == name)
}

/// Where programs for an architecture are installed or built. Those beside the tool may be for another one.
fn places(kind: Kind, arch: &str) -> Vec<PathBuf> {
    let file = kind.file();
    let mut places = Vec::new();
    if let Some(directory) = env::current_exe().ok().as_deref().and_then(Path::parent) {
        places.push(directory.join(format!("repot-{file}")));
        // For target/release/repot this is target/dist/ARCH/init.
        places.extend(directory.parent().map(|target| target.join("dist").join(arch).join(file)));
    }
    // Of the sources that this tool was built from, if it was installed from there.
    places.extend(
        option_env!("REPOT_SOURCES").map(|top| Path::new(top).join("target/dist").join(arch).join(file)),
    );
    places.push(Path::new("/usr/lib/repot").join(arch).join(file));
    places.push(Path::new("/usr/lib/repot").join(file));
    places.push(Path::new("target/dist").join(arch).join(file));
    places
}

/// The bytes of a built-in program, which may be compressed.
fn unpack(bytes: &'static [u8]) -> Result<Arc<[u8]>> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let bytes = match bytes.starts_with(&ZSTD) {
        true => Cow::Owned(zstd::decode_all(bytes).context("a built-in program is corrupt")?),
        false => Cow::Borrowed(bytes),
    };
    Ok(bytes.as_ref().into())
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
        Ok(Program { architecture, .. }) => Ok(InitBinary { bytes, origin, architecture, warning: None }),
        Err(why) => bail!("{origin} {why}"),
    }
}
