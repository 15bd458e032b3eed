//! Embeds the init: a released `repot` is built with `REPOT_EMBED=/path/to/init` and then needs no path to it.

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=REPOT_EMBED");
    let to = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join("init");
    match env::var_os("REPOT_EMBED") {
        Some(init) => {
            println!("cargo::rerun-if-changed={}", init.display());
            fs::copy(&init, &to).map_err(|error| format!("REPOT_EMBED={}: {error}", init.display()))?;
        }
        None => fs::write(&to, [])?,
    }
    Ok(())
}
