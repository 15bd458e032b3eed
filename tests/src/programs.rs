//! The static programs of a sandbox: the `/init` under test, and the helper in place of the real init.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use repot_harness::build::{self, Arch};
use repot_harness::place;

/// The tests run on the machine that they are built for.
const ARCH: Arch = if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 };

/// The `/init` under test: `$REPOT_INIT`, or a new build.
///
/// # Panics
/// If the build fails.
pub fn repot_init() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let given = std::env::var_os("REPOT_INIT").map(PathBuf::from);
        given.unwrap_or_else(|| build::init(ARCH).expect("the init"))
    })
}

/// The `/init` that can unpack payloads: `$REPOT_INIT_PAYLOAD`, or a new build.
///
/// # Panics
/// If the build fails.
pub fn repot_init_payload() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let given = std::env::var_os("REPOT_INIT_PAYLOAD").map(PathBuf::from);
        given.unwrap_or_else(|| build::init_payload(ARCH).expect("the init for payloads"))
    })
}

/// The runner of `repot pack --run`: `$REPOT_RUN`, or a new build.
///
/// # Panics
/// If the build fails.
pub fn repot_run() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let given = std::env::var_os("REPOT_RUN").map(PathBuf::from);
        given.unwrap_or_else(|| build::runner(ARCH).expect("the runner"))
    })
}

/// The `/init` for another architecture, if its Rust target is installed.
///
/// # Panics
/// If the build fails.
#[must_use]
pub fn repot_init_for(arch: Arch) -> Option<PathBuf> {
    has(&format!("{}-unknown-linux-musl", arch.name())).then(|| build::init(arch).expect("the init"))
}

/// The helper, rebuilt if `guest/init.rs` is newer.
///
/// # Panics
/// If the build fails.
pub fn helper() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = place::checkout().join("tests/guest/init.rs");
        let built = place::built().join("repot-tests/init");
        let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
        if changed(&built) > changed(&source) {
            return built;
        }
        std::fs::create_dir_all(built.parent().expect("has one")).expect("directory for the helper");
        // Under a temporary name first, because another test may be starting the old one.
        let fresh = built.with_extension(std::process::id().to_string());
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
        rustc.args([
            "--edition=2024",
            "-Copt-level=s",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ]);
        let triple = triple();
        if triple.ends_with("-musl") {
            rustc.arg("-Clinker=rust-lld");
        }
        run(rustc.args(["--target", &triple, "-o"]).arg(&fresh).arg(&source));
        std::fs::rename(&fresh, &built).expect("the helper in its place");
        built
    })
}

/// musl, as released, or static glibc if that target is missing.
fn triple() -> String {
    let musl = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    if has(&musl) { musl } else { format!("{}-unknown-linux-gnu", std::env::consts::ARCH) }
}

/// Whether a target's standard library is installed.
fn has(triple: &str) -> bool {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    let said = rustc.args(["--print", "target-libdir", "--target", triple]).output();
    said.is_ok_and(|said| Path::new(String::from_utf8_lossy(&said.stdout).trim()).is_dir())
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
