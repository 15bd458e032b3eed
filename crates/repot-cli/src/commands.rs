//! The commands, one file each.

pub mod append;
pub mod boot;
pub mod cat;
pub mod completions;
pub mod create;
pub mod diff;
pub mod extract;
pub mod init;
pub mod inspect;
mod install;
pub mod ls;
pub mod man;
pub mod pack;
pub mod plan;
pub mod rehearse;

use crate::cli::{Cli, Command};

/// Runs a command.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Pack(args) => pack::run(args),
        Command::Create(args) => create::run(args),
        Command::Append(args) => append::run(args),
        Command::Init(args) => init::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Ls(args) => ls::run(args),
        Command::Cat(args) => cat::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Extract(args) => extract::run(args),
        Command::Boot(args) => boot::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Rehearse(args) => rehearse::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}
