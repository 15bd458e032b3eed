//! The command line: every command with its options and an example or two.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::codec::Compression;
use crate::config::{self, Setting};

/// Pack, inspect, boot and rehearse initramfs images that move their root onto a tmpfs of its own.
#[derive(Debug, Parser)]
#[command(name = "repot", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:
  repot pack rootfs/ -o image.zst          a directory becomes an initramfs that boots
  docker export c1 | repot pack - -o image.zst
  repot boot image.zst                     try it in QEMU
  repot inspect image.zst                  what is inside, what RAM it needs, what is wrong

Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an initramfs from a directory, a tar archive or an image of containers
    #[command(after_help = "Examples:
  repot pack rootfs/ -o image.zst
  repot pack rootfs.tar.xz -o image.xz --compress xz
  podman export c1 | repot pack - -o image.zst --config size=70%
  repot pack oci-layout/ --image latest -o image.zst

ROOT may be a directory, a tar archive (plain, gzip, xz, zstd), an OCI image layout (directory or
archive), or what docker save writes. The same input gives the same bytes; with SOURCE_DATE_EPOCH
set, no time in the image is later than that.")]
    Pack(Pack),

    /// Show what is in an initramfs, what RAM it needs, and what is wrong with it
    #[command(after_help = "Examples:
  repot inspect image.zst
  repot inspect /boot/initrd.img-6.1.0-40-amd64
  repot inspect --json image.zst | jq .ram

Reads any initramfs that the kernel reads, whoever made it. A damaged one is reported up to the
damage, and the exit code is 1.")]
    Inspect(Inspect),
}

/// The options of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The image; - is standard input
    pub image: PathBuf,
    /// For programs to read
    #[arg(long)]
    pub json: bool,
}

/// The options of `pack`.
#[derive(Debug, Args)]
pub struct Pack {
    /// The root file system; - reads an archive from standard input
    pub root: PathBuf,
    /// The image to write; - is standard output
    #[arg(short, long, value_name = "IMAGE")]
    pub output: PathBuf,
    /// How to compress
    #[arg(short, long, value_enum, default_value = "zstd", value_name = "FORMAT")]
    pub compress: Compression,
    /// How hard to compress: zstd 1-22 (default 9), gzip 1-9 (6), xz 0-9 (6)
    #[arg(short, long)]
    pub level: Option<u32>,
    /// Write a setting to /etc/repot.conf, such as size=70% or mode=bind
    #[arg(long, value_name = "KEY=VALUE", value_parser = config::parse)]
    pub config: Vec<Setting>,
    /// The init to use instead of the one built in
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// Which image, when there are several
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,
    /// Which architecture of an image, as OCI calls it: amd64, arm64, …
    #[arg(long, value_name = "ARCH", default_value = oci_architecture())]
    pub arch: String,
}

/// This machine's architecture as OCI calls it.
fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
