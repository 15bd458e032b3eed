//! The command line: every command with its options and an example or two.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::codec::Compression;
use crate::config::{self, Setting};
use crate::size;

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
  repot pack rootfs/ --payload -o image.cpio         boots in less memory than any other
  repot pack --json rootfs/ -o image.zst | jq .ram.tmpfs

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

    /// Add repot to an existing initramfs as one more segment, without unpacking it
    #[command(after_help = "Examples:
  repot append /boot/initrd.img -o initrd.repot
      repot becomes /init; the /init of the image is kept as /init.real and runs after the move
  repot append initrd -o initrd.repot --rdinit /repot
      the image stays as it is; boot it with rdinit=/repot to move its root")]
    Append(Append),

    /// Boot an initramfs in QEMU, with its console on this terminal
    #[command(after_help = "Examples:
  repot boot image.zst
  repot boot image.zst --shell                       a shell on the new root
  repot boot image.zst --memory 400M --append 'rootfstype=ramfs repot.log=debug'
  repot boot image.zst --console log.txt -- -serial file:report.txt
      for scripts: the console goes into a file, and the guest has a second serial port

Takes the newest kernel it finds in target/kernels, /boot and /usr/lib/modules, or $REPOT_KERNEL.
What follows -- is for QEMU. QEMU ends when the guest powers off, reboots or panics.")]
    Boot(Boot),

    /// Say why pivot_root works or fails on this machine, and what repot would do here
    #[command(after_help = "Examples:
  repot plan                   without root, what the mounts tell
  sudo repot plan --json

Nothing is changed.")]
    Plan(PlanArgs),

    /// Move a copy of a directory for real, in a private mount namespace, and compare every attribute
    #[command(after_help = "Examples:
  sudo repot rehearse rootfs/
  sudo repot rehearse / --memory 512M      as if the machine had that much
  sudo repot rehearse --json rootfs/ | jq '.[] | {from, milliseconds, extra}'

Copies the directory into memory twice, one after the other: onto a ramfs and onto a tmpfs. This machine's
own mounts are not touched.")]
    Rehearse(Rehearse),

    /// Print a completion script for a shell
    #[command(after_help = "Example:
  repot completions bash > /etc/bash_completion.d/repot")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },

    /// Print the manual page
    #[command(after_help = "Examples:
  repot man | man -l -
  repot man pack > repot-pack.1")]
    Man {
        /// The page of this command instead of the whole
        command: Option<String>,
    },
}

/// The options of `boot`.
#[derive(Debug, Args)]
pub struct Boot {
    /// The image
    pub image: PathBuf,
    /// The kernel
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The guest's memory; what the image needs, and 512M at least, when not given
    #[arg(short, long, value_name = "SIZE", value_parser = size::parse)]
    pub memory: Option<u64>,
    /// The guest's CPUs
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub cpus: u32,
    /// Emulate the processor even where KVM works
    #[arg(long)]
    pub no_kvm: bool,
    /// Words to add to the kernel command line
    #[arg(short, long, value_name = "WORDS", allow_hyphen_values = true)]
    pub append: Vec<String>,
    /// Run /bin/sh as the init
    #[arg(long)]
    pub shell: bool,
    /// Write the guest's console to a file instead of this terminal
    #[arg(long, value_name = "FILE")]
    pub console: Option<PathBuf>,
    /// More arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENT")]
    pub qemu: Vec<OsString>,
}

/// The options of `append`.
#[derive(Debug, Args)]
pub struct Append {
    /// The initramfs to add to
    pub initramfs: PathBuf,
    /// The image to write; - is standard output
    #[arg(short, long, value_name = "IMAGE")]
    pub output: PathBuf,
    /// Put repot at this path instead of /init, for rdinit=PATH on the kernel command line
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    pub rdinit: Option<String>,
    /// Write a setting to /etc/repot.conf, such as size=70% or mode=bind
    #[arg(long, value_name = "KEY=VALUE", value_parser = config::parse)]
    pub config: Vec<Setting>,
    /// The init to use instead of the one built in
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
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
    /// Leave the root compressed in the image, for /init to unpack: needs the least memory
    #[arg(long)]
    pub payload: bool,
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
    /// Say what was packed for programs to read
    #[arg(long)]
    pub json: bool,
}

/// The options of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// For programs to read
    #[arg(long)]
    pub json: bool,
}

/// The options of `rehearse`.
#[derive(Debug, Args)]
pub struct Rehearse {
    /// What to copy and move
    pub directory: PathBuf,
    /// Plan as if the machine had this much memory
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub memory: Option<u64>,
    /// For programs to read
    #[arg(long)]
    pub json: bool,
    /// The kind of root to start from, in the namespaces made for it
    #[arg(long, hide = true)]
    pub inside: Option<String>,
    /// Where the copy is mounted
    #[arg(long, hide = true)]
    pub stage: Option<PathBuf>,
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

fn absolute(path: &str) -> Result<String, &'static str> {
    let plain = path.starts_with('/')
        && path.len() > 1
        && path.split('/').skip(1).all(|name| !matches!(name, "" | "." | ".."));
    if plain { Ok(path.to_string()) } else { Err("not an absolute path of plain names") }
}
