//! Other programs: an error names the command line and what it said.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Runs a program whose output the reader of the terminal wants to see.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| cannot(command))?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a program for what it writes; its errors become part of ours.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot(command))?;
    if !output.status.success() {
        bail!("`{}` ended with {}: {}", line(command), output.status, lossy(&output.stderr));
    }
    Ok(lossy(&output.stdout))
}

/// Whether a program of that name can be found.
pub(crate) fn exists(program: &str) -> bool {
    find(program).is_ok()
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps runc and its like where an ordinary user's path does not go.
    let mut folders = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()))
        .with_context(|| format!("no program {program} on this machine"))
}

fn cannot(command: &Command) -> String {
    format!("cannot run `{}`", line(command))
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
