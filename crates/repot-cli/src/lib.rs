//! The tool for the person who builds images: what the `repot` command is made of.
//!
//! A source (directory, tar, OCI image) becomes a [`tree::Tree`] in memory, without the contents of its
//! files; the tree is edited (`/init`, device nodes, configuration) and written as a newc archive. [`newc`]
//! alone knows the bytes.

pub mod append;
pub mod beneath;
pub mod boot;
pub mod cli;
pub mod codec;
pub mod config;
pub mod elf;
pub mod image;
pub mod init_binary;
pub mod inspect;
pub mod manifest;
pub mod manual;
pub mod marker;
pub mod name;
pub mod newc;
pub mod output;
pub mod pack;
pub mod payload;
pub mod plan;
pub mod programs;
pub mod ram;
pub mod rehearse;
pub mod report;
pub mod segments;
pub mod size;
pub mod source;
pub mod tree;

/// An error of the person at the keyboard: the program ends with 2 instead of 1.
#[derive(Debug)]
pub struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A failure that was told already, by another process.
#[derive(Debug)]
pub struct Reported;

impl std::fmt::Display for Reported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Reported {}

/// A [`Usage`] error with this text.
pub(crate) fn usage(text: String) -> anyhow::Error {
    Usage(text).into()
}

/// Runs a command.
pub fn run(cli: &cli::Cli) -> anyhow::Result<()> {
    match &cli.command {
        cli::Command::Pack(args) => pack::run(args),
        cli::Command::Append(args) => append::run(args),
        cli::Command::Boot(args) => boot::run(args),
        cli::Command::Completions { shell } => manual::completions(*shell),
        cli::Command::Man { command } => manual::page(command.as_deref()),
        cli::Command::Plan(args) => plan::run(args),
        cli::Command::Rehearse(args) => rehearse::run(args),
        cli::Command::Inspect(args) => inspect::run(args),
    }
}
