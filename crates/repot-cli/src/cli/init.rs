//! The options of `init`.

use std::path::PathBuf;

use clap::Args;

/// The options of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The file to write; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The init that unpacks payloads
    #[arg(long)]
    pub payload: bool,
    /// The runner of images that hold one program
    #[arg(long, conflicts_with = "payload")]
    pub run: bool,
    /// Its architecture, such as x86_64, aarch64 or s390x [default: that of this program]
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
}
