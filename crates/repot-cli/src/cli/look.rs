//! The options of the commands that look into images and take them apart.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;

use clap::Args;

use super::values;

/// The options of `ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// The image; - is standard input
    pub image: PathBuf,
    /// List only what fits one of these
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Print segment, mode, number of links, owner, size and time too, and what is overridden
    #[arg(short, long)]
    pub long: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of `cat`.
#[derive(Debug, Args)]
pub struct Cat {
    /// The image; - is standard input
    pub image: PathBuf,
    /// The path of the file in the image
    pub path: OsString,
    /// Look at this segment only; the first is 1
    #[arg(long, value_name = "N")]
    pub segment: Option<NonZero<usize>>,
}

/// The options of `extract`.
#[derive(Debug, Args)]
pub struct Extract {
    /// The image; - is standard input
    pub image: PathBuf,
    /// The directory, which is created if it does not exist
    #[arg(short = 'C', long, value_name = "DIR")]
    pub directory: PathBuf,
    /// Extract only what fits one of these
    #[arg(value_name = "PATTERN")]
    pub patterns: Vec<String>,
    /// Extract each segment into a directory of its own: DIR/1, DIR/2, and so on; a payload into DIR/payload
    #[arg(long)]
    pub parts: bool,
    /// Write into the directory as it is, and replace what has the name of an entry
    #[arg(long)]
    pub overwrite: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// The first root
    pub a: PathBuf,
    /// The second root
    pub b: PathBuf,
    /// Do not compare this. May be repeated
    #[arg(long, value_enum, value_name = "WHAT")]
    pub ignore: Vec<Aspect>,
    /// Architecture of a container image in OCI terms, such as amd64, arm64 or arm/v7
    #[arg(long, value_name = "ARCH", default_value = values::oci_architecture())]
    pub arch: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// An attribute that `diff` can ignore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Aspect {
    /// Permissions
    Mode,
    /// Owner and group
    Owner,
    /// Modification time
    Time,
    /// Extended attributes
    Xattrs,
}
