//! `repot man` and `repot completions`: made from the definition of the command line, so they cannot disagree
//! with it.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Prints the manual page of the program, or of one command.
pub fn page(command: Option<&str>) -> Result<()> {
    let mut program = Cli::command();
    program.build();
    let shown = match command {
        None => program,
        Some(name) => {
            let found = program.find_subcommand(name).cloned();
            found.ok_or_else(|| crate::usage(format!("there is no command {name}")))?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(shown).render(&mut text)?;
    io::stdout().write_all(&text).context("cannot write to standard output")
}

/// Prints a completion script.
pub fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "repot", &mut text);
    io::stdout().write_all(&text).context("cannot write to standard output")
}
