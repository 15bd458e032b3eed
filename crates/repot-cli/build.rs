//! Embeds the init: a released `repot` is built with `REPOT_INIT=/path/to/init` and then needs no path to it.

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=REPOT_INIT");
    let to = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join("init");
    match env::var_os("REPOT_INIT") {
        Some(init) => {
            println!("cargo::rerun-if-changed={}", init.display());
            fs::copy(&init, &to).map_err(|error| format!("REPOT_INIT={}: {error}", init.display()))?;
        }
        None => fs::write(&to, [])?,
    }
    Ok(())
}
