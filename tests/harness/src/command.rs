//! Other programs. An error shows the command line and what the program printed.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Runs a program whose output goes to the terminal.
///
/// # Errors
/// If the program cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| cannot_run(command))?;
    if !status.success() {
        bail!("`{}` ended with {status}", command_line(command));
    }
    Ok(())
}

/// Runs a program and returns its standard output. Its standard error becomes part of our error.
///
/// # Errors
/// If the program cannot be started or fails.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_run(command))?;
    if !output.status.success() {
        bail!("`{}` ended with {}: {}", command_line(command), output.status, lossy(&output.stderr));
    }
    Ok(lossy(&output.stdout))
}

/// The cargo that runs this program, or the one in `PATH`.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::place::checkout());
    cargo
}

/// Whether a program of that name is installed.
#[must_use]
pub fn exists(program: &str) -> bool {
    find(program).is_ok()
}

/// The path of an installed program.
///
/// # Errors
/// If the program is not installed.
pub fn find(program: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    // Debian installs runc and other tools for root outside of a normal user's PATH.
    let mut folders = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()))
        .with_context(|| format!("{program} is not installed"))
}

fn cannot_run(command: &Command) -> String {
    format!("cannot run `{}`", command_line(command))
}

fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}
