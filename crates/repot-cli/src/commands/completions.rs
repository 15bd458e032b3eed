//! `repot completions`: a completion script, generated from the definition of the command line.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::report;

/// Runs the command.
pub fn run(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "repot", &mut text);
    report::print(&String::from_utf8(text)?)
}
