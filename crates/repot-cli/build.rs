//! Embeds repot's own programs: `REPOT_EMBED=FOLDER` has them as `ARCH/init`, `ARCH/init-payload` and
//! `ARCH/run`, or compressed as `ARCH/init.zst` and so on.
//!
//! A release build without it, which `cargo install` makes, builds those of its own architecture from the
//! sources beside this package, and a tool without any looks for them on disk.

#[path = "build/own.rs"]
mod own;

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=REPOT_EMBED");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let mut list = String::from("&[");
    let mut inside = Vec::new();
    let mut folder = env::var_os("REPOT_EMBED").map(PathBuf::from);
    if folder.is_none() && env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        folder = own::build(&out.join("own"))?;
    }
    if let Some(folder) = &folder {
        // What was built here has changed already.
        let given = !folder.starts_with(&out);
        if given {
            println!("cargo::rerun-if-changed={}", folder.display());
        }
        let failed = |error| format!("REPOT_EMBED={}: {error}", folder.display());
        let mut files = files(folder).map_err(failed)?;
        files.sort();
        for path in files {
            if given {
                println!("cargo::rerun-if-changed={}", path.display());
            }
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
