//! Embeds repot's own programs: `REPOT_EMBED=FOLDER` has them as `ARCH/init`, `ARCH/init-payload` and
//! `ARCH/run`, or compressed as `ARCH/init.zst` and so on. A tool built without it looks for them on disk.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=REPOT_EMBED");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let mut list = String::from("&[");
    let mut inside = Vec::new();
    if let Some(folder) = env::var_os("REPOT_EMBED") {
        let folder = Path::new(&folder);
        println!("cargo::rerun-if-changed={}", folder.display());
        let failed = |error| format!("REPOT_EMBED={}: {error}", folder.display());
        let mut files = files(folder).map_err(failed)?;
        files.sort();
        for path in files {
            println!("cargo::rerun-if-changed={}", path.display());
            let arch = path.parent().and_then(Path::file_name).ok_or("no architecture")?;
            let name = path.file_name().and_then(|name| name.to_str()).ok_or("a name that is not text")?;
            let name = name.strip_suffix(".zst").unwrap_or(name);
            // A copy, so that the program does not name the folder.
            let copy = format!("{}-{name}", arch.display());
            fs::copy(&path, out.join(&copy)).map_err(failed)?;
            let arch = arch.display();
            inside.push(format!("{arch}/{name}"));
            write!(
                list,
                "(\"{arch}\", \"{name}\", include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{copy}\"))),"
            )?;
        }
    }
    fs::write(out.join("embedded.rs"), list + "]")?;
    // The text of `repot --version`. A value has one line.
    let inside =
        if inside.is_empty() { "nothing; programs are found on disk".to_owned() } else { inside.join(" ") };
    println!("cargo::rustc-env=REPOT_INSIDE={inside}");
    Ok(())
}

/// The programs in the folders of a folder.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for arch in fs::read_dir(folder)? {
        let arch = arch?.path();
        if arch.is_dir() {
            for file in fs::read_dir(arch)? {
                files.push(file?.path());
            }
        }
    }
    let known = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        ["init", "init-payload", "run"].contains(&name.strip_suffix(".zst").unwrap_or(name))
    };
    files.retain(known);
    Ok(files)
}
