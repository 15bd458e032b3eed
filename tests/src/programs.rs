//! The two static programs of a sandbox: the `/init` under test and the helper that stands in for the real init.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The `/init` under test: `$REPOT_INIT`, or what cargo builds now from the sources.
///
/// # Panics
/// When it cannot be built.
pub fn repot_init() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(given) = std::env::var_os("REPOT_INIT") {
            return given.into();
        }
        build_init(&triple())
    })
}

/// The `/init` that unpacks payloads: `$REPOT_INIT_PAYLOAD`, or what cargo builds now from the sources.
///
/// # Panics
/// When it cannot be built.
pub fn repot_init_payload() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(given) = std::env::var_os("REPOT_INIT_PAYLOAD") {
            return given.into();
        }
        // Out of the way of the other init, whose file has the same name.
        let (triple, apart) = (triple(), target().join("payload"));
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args([
            "build",
            "--quiet",
            "--package",
            "repot-init",
            "--features",
            "payload",
            "--profile",
            "init",
        ]);
        cargo.arg("--target").arg(&triple).arg("--target-dir").arg(&apart).current_dir(workspace());
        // As `cargo xtask dist` does.
        let named = triple.replace('-', "_");
        cargo.env(format!("CC_{named}"), "cc");
        cargo.env(format!("CFLAGS_{named}"), "-U_FORTIFY_SOURCE -fno-stack-protector");
        run(&mut cargo);
        apart.join(triple).join("init/repot-init")
    })
}

/// The same for a target, where its standard library is there.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn repot_init_for(triple: &str) -> Option<PathBuf> {
    has(triple).then(|| build_init(triple))
}

fn build_init(triple: &str) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--quiet", "--package", "repot-init", "--profile", "init", "--target", triple]);
    if triple.ends_with("-gnu") {
        cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    run(cargo.current_dir(workspace()));
    target().join(triple).join("init/repot-init")
}

/// The helper, built from `guest/init.rs` when that is newer.
///
/// # Panics
/// When it cannot be built.
pub fn helper() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = workspace().join("tests/guest/init.rs");
        let built = target().join("repot-tests/init");
        let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
        if changed(&built) > changed(&source) {
            return built;
        }
        std::fs::create_dir_all(built.parent().expect("has one")).expect("directory for the helper");
        // Under a name of our own first: another test may be starting the old one.
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

/// musl, as it is shipped, or static glibc where there is no such target.
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

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace")
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
