//! The `repot` command.

use std::process::ExitCode;

use clap::Parser;
use repot_cli::cli::Cli;
use repot_cli::errors::{Reported, Status, Usage};
use repot_cli::report::say;
use repot_cli::run;

fn main() -> ExitCode {
    // On wrong usage, clap exits here with 2.
    let Err(error) = run(&Cli::parse()) else { return ExitCode::SUCCESS };
    if let Some(Status(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    if !error.is::<Reported>() {
        say(format_args!("{error:#}"));
    }
    if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}
