//! The options of the commands that look at this machine.

use std::path::PathBuf;

use clap::Args;

use crate::report::size;

/// The options of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of `rehearse`.
#[derive(Debug, Args)]
pub struct Rehearse {
    /// The directory to copy and move
    pub directory: PathBuf,
    /// Plan as if the machine had this much memory
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub memory: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The file system type to start from; used by the child process in its namespaces
    #[arg(long, hide = true)]
    pub inside: Option<String>,
    /// The mount point of the copy
    #[arg(long, hide = true)]
    pub stage: Option<PathBuf>,
}
