//! Writes files of help where other programs look for them: for all users as root, else for the user.

use std::env;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::output::Output;
use crate::report;

/// What marks a file as repot's own, in its first lines.
pub(super) const MARK: &str = "Written by repot --install.";

/// Bytes in which the mark is looked for.
const HEAD: usize = 4096;

/// Below which folders files belong.
pub(super) enum Base {
    /// Those of all users.
    System,
    /// The home directory.
    User(PathBuf),
}

impl Base {
    pub(super) fn of_user() -> Result<Base> {
        if rustix::process::geteuid().is_root() {
            // Whatever root's umask is, others read these files too.
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
            return Ok(Base::System);
        }
        let home = env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        Ok(Base::User(home.context("$HOME is not set")?))
    }

    /// A folder of the data that does not depend on the architecture.
    pub(super) fn data(&self, folder: &str) -> PathBuf {
        match self {
            Base::System => Path::new("/usr/local/share").join(folder),
            Base::User(home) => {
                let data = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
                data.unwrap_or_else(|| home.join(".local/share")).join(folder)
            }
        }
    }
}

/// Writes files, whose text has the mark, and prints their names. Nothing is written if one of them is
/// somebody else's.
pub(super) fn write(files: &[(PathBuf, String)], force: bool) -> Result<()> {
    for (path, _) in files {
        if !force && is_foreign(path)? {
            bail!("{} is not from repot: remove it, or use --force", path.display());
        }
    }
    for (path, text) in files {
        let cannot_write = || format!("cannot write {}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(cannot_write)?;
        }
        let mut output = Output::create(path)?;
        output.write_all(text.as_bytes()).with_context(cannot_write)?;
        output.commit()?;
        report::print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

/// Whether something has this name that repot has not written.
fn is_foreign(path: &Path) -> Result<bool> {
    let cannot_read = || format!("cannot read {}", path.display());
    match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => return Ok(false),
        Err(error) => return Err(error).with_context(cannot_read),
        Ok(metadata) if !metadata.is_file() => return Ok(true),
        Ok(_) => {}
    }
    let text = fs::read(path).with_context(cannot_read)?;
    let head = &text[..text.len().min(HEAD)];
    Ok(!head.windows(MARK.len()).any(|window| window == MARK.as_bytes()))
}
