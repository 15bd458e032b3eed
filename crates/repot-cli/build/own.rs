//! Builds the programs of the architecture that the tool is built for, from the sources of this workspace.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Package, features, the program of cargo, its name.
const PROGRAMS: [[&str; 4]; 3] = [
    ["repot-init", "", "repot-init", "init"],
    ["repot-init", "payload", "repot-init", "init-payload"],
    ["repot-run", "", "repot-run", "run"],
];

/// Builds them below `folder`, and returns the folder with `ARCH/init` and so on. Without the sources, or if
/// they cannot be built, a tool without them is built: the reason is a warning, and part of the tool's
/// message.
pub(super) fn build(folder: &Path) -> Result<Option<PathBuf>> {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?);
    // A package from a registry has no workspace around it.
    let Some(top) =
        package.ancestors().nth(2).filter(|top| top.join("crates/repot-init/Cargo.toml").is_file())
    else {
        return Ok(None);
    };
    for part in ["Cargo.lock", "crates/repot", "crates/repot-init", "crates/repot-run"] {
        println!("cargo::rerun-if-changed={}", top.join(part).display());
    }
    // Where `cargo xtask dist` puts what is built later.
    println!("cargo::rustc-env=REPOT_SOURCES={}", top.display());
    match build_all(top, folder) {
        Ok(built) => Ok(Some(built)),
        Err(why) => {
            let why = why.to_string().replace('\n', " ");
            println!("cargo::warning=the tool has no init inside: {why}");
            println!("cargo::rustc-env=REPOT_NOT_BUILT={why}");
            Ok(None)
        }
    }
}

fn build_all(top: &Path, folder: &Path) -> Result<PathBuf> {
    let arch = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86" => "i686".to_owned(),
        "arm" => "armv7".to_owned(),
        "powerpc64" => "ppc64le".to_owned(),
        other => other.to_owned(),
    };
    let (triple, flags) = target(&arch)?;
    let built = folder.join("programs").join(&arch);
    fs::create_dir_all(&built)?;
    for [package, features, program, name] in PROGRAMS {
        let mut cargo = Command::new(env::var_os("CARGO").ok_or("no CARGO")?);
        // From there, for the linker in its configuration.
        cargo.current_dir(top).args(["build", "--quiet", "--locked", "--profile=init"]);
        cargo.args(["--package", package, "--features", features, "--target", &triple, "--target-dir"]);
        cargo.arg(folder.join("target")).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        cargo.envs(c_compiler(top, &triple)?);
        for own in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
            cargo.env_remove(own);
        }
        let output = cargo.output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let first = text.lines().find(|line| line.starts_with("error")).unwrap_or("cargo failed");
            let help = if triple.ends_with("musl") {
                String::new()
            } else {
                format!("; run `rustup target add {}` and install it again", musl(&arch))
            };
            return Err(format!("{package} for {triple}: {first}{help}").into());
        }
        fs::copy(folder.join("target").join(&triple).join("init").join(program), built.join(name))?;
    }
    Ok(folder.join("programs"))
}

/// The Rust target and the compiler's flags: musl if its library is installed, else the target of the tool.
fn target(arch: &str) -> Result<(String, Vec<&'static str>)> {
    let musl = musl(arch);
    let rustc = env::var_os("RUSTC").ok_or("no RUSTC")?;
    let library = Command::new(rustc).args(["--print", "target-libdir", "--target", &musl]).output()?;
    if Path::new(String::from_utf8_lossy(&library.stdout).trim()).is_dir() {
        return Ok((musl, Vec::new()));
    }
    // The static libc calls functions of libgcc, which Rust links before it.
    let flags = vec!["-C", "target-feature=+crt-static", "-C", "link-arg=-lgcc"];
    Ok((env::var("TARGET")?, flags))
}

/// The Rust target with musl. There is none for s390x.
fn musl(arch: &str) -> String {
    match arch {
        "armv7" => "armv7-unknown-linux-musleabihf".to_owned(),
        "riscv64" => "riscv64gc-unknown-linux-musl".to_owned(),
        "ppc64le" => "powerpc64le-unknown-linux-musl".to_owned(),
        other => format!("{other}-unknown-linux-musl"),
    }
}

/// The compiler of the zstd decoder. It is the machine's own also for musl, with the few declarations that
/// the decoder needs.
fn c_compiler(top: &Path, triple: &str) -> Result<Vec<(String, String)>> {
    if !triple.ends_with("musl") {
        return Ok(Vec::new());
    }
    let program = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let own = Command::new(&program).arg("-print-file-name=include").output();
    let own = own.map_err(|why| format!("the C compiler {program}: {why}"))?.stdout;
    let declared = top.join("tests/harness/include");
    let own = String::from_utf8_lossy(&own);
    let flags = format!("-nostdinc -I{} -isystem {} -fno-stack-protector", declared.display(), own.trim());
    let triple = triple.replace('-', "_");
    Ok(vec![(format!("CC_{triple}"), program), (format!("CFLAGS_{triple}"), flags)])
}
