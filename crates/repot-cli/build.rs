//! Embeds the inits in the program.
//!
//! `REPOT_EMBED=/path/to/init` names the init, `REPOT_EMBED_PAYLOAD` the one that unpacks payloads. A program
//! built with both needs no `--init`. `REPOT_EMBED_RUN` names the runner of `pack --run`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    embed("REPOT_EMBED", &out.join("init"))?;
    embed("REPOT_EMBED_PAYLOAD", &out.join("init-payload"))?;
    embed("REPOT_EMBED_RUN", &out.join("run"))
}

/// Copies the file that a variable names, or creates an empty file if the variable is not set.
fn embed(variable: &str, to: &Path) -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed={variable}");
    match env::var_os(variable) {
        Some(init) => {
            println!("cargo::rerun-if-changed={}", init.display());
            fs::copy(&init, to).map_err(|error| format!("{variable}={}: {error}", init.display()))?;
        }
        None => fs::write(to, [])?,
    }
    Ok(())
}
