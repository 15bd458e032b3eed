//! The command line: every command with its options and examples.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::codec::Compression;
use crate::image::config::{self, Setting};
use crate::report::size;

/// Pack, inspect, boot and rehearse initramfs images that move their root onto a tmpfs
#[derive(Debug, Parser)]
#[command(name = "repot", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:
  repot pack rootfs/ -o image.zst          turn a directory into an initramfs that boots
  docker export c1 | repot pack - -o image.zst
  repot boot image.zst                     try it in QEMU
  repot inspect image.zst                  list contents, memory needed, and problems

Exit codes: 0 success, 1 failure, 2 wrong usage.")]
pub struct Cli {
    /// The command to run
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an initramfs from a directory, a tar archive or a container image
    #[command(after_help = "Examples:
  repot pack rootfs/ -o image.zst
  repot pack rootfs.tar.xz -o image.xz --compress xz
  podman export c1 | repot pack - -o image.zst --config size=70%
  repot pack oci-layout/ --image latest -o image.zst
  repot pack rootfs/ --payload -o image.cpio         boots in the least memory
  repot pack --json rootfs/ -o image.zst | jq .ram.tmpfs

ROOT is a directory, a tar archive (uncompressed, gzip, xz or zstd), an OCI image layout (a
directory or an archive), or the output of docker save. The same input always gives the same
bytes. If SOURCE_DATE_EPOCH is set, no timestamp in the image is later than that.")]
    Pack(Pack),

    /// Show what is in an initramfs, how much memory it needs, and what is wrong with it
    #[command(after_help = "Examples:
  repot inspect image.zst
  repot inspect /boot/initrd.img-6.1.0-40-amd64
  repot inspect --json image.zst | jq .ram

Reads every initramfs that the kernel reads, whichever tool made it. A corrupt image is shown up to
the corruption, and the exit code is 1.")]
    Inspect(Inspect),

    /// Add repot to an existing initramfs as one more segment, without unpacking it
    #[command(after_help = "Examples:
  repot append /boot/initrd.img -o initrd.repot
      repot becomes /init; the old /init is kept as /init.real and runs after the move
  repot append initrd -o initrd.repot --rdinit /repot
      the old /init stays in place; boot with rdinit=/repot to move the root first")]
    Append(Append),

    /// Boot an initramfs in QEMU, with its console on this terminal
    #[command(after_help = "Examples:
  repot boot image.zst
  repot boot image.zst --shell                       run a shell on the new root
  repot boot image.zst --memory 400M --append 'rootfstype=ramfs repot.log=debug'
  repot boot image.zst --timeout 2m --expect 'login:'
      for scripts: exits with 0 once the console shows the text
  repot boot vm.img --publish 8080:80                a web server
  repot boot image.zst --console log.txt -- -serial file:report.txt
      write the console to a file, and give the guest a second serial port

The kernel is the newest in target/kernels, /boot and /usr/lib/modules, unless --kernel or
$REPOT_KERNEL names one. Arguments after -- go to QEMU. QEMU exits when the guest powers off,
reboots or panics.

Exit codes: that of the program if the image runs one (docs/run.md), 1 after a kernel panic, 124 after
--timeout, else 0.")]
    Boot(Boot),

    /// Explain whether pivot_root works on this machine, and show what repot would do
    #[command(after_help = "Examples:
  repot plan                   without root: pivot_root only
  sudo repot plan --json

Nothing is changed.")]
    Plan(PlanArgs),

    /// Move a copy of a directory for real, in a private mount namespace, and compare every attribute
    #[command(after_help = "Examples:
  sudo repot rehearse rootfs/
  sudo repot rehearse / --memory 512M      plan as if the machine had 512 MiB
  sudo repot rehearse --json rootfs/ | jq '.[] | {from, milliseconds, extra}'

Copies the directory into memory twice, one copy after the other: onto a ramfs and onto a tmpfs.
The mounts of this machine are not touched.")]
    Rehearse(Rehearse),

    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  repot completions bash > /etc/bash_completion.d/repot
  repot completions zsh > ~/.zfunc/_repot")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },

    /// Print the manual page
    #[command(after_help = "Examples:
  repot man | man -l -
  repot man pack > repot-pack.1")]
    Man {
        /// Print the page of this command instead of the overview
        command: Option<String>,
    },
}

/// The options of `boot`.
#[derive(Debug, Args)]
pub struct Boot {
    /// The image to boot
    pub image: PathBuf,
    /// The kernel to boot
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Memory of the guest [default: what the image needs, at least 512M]
    #[arg(short, long, value_name = "SIZE", value_parser = size::parse)]
    pub memory: Option<u64>,
    /// Number of CPUs of the guest
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub cpus: u32,
    /// Emulate the CPU even if KVM works
    #[arg(long)]
    pub no_kvm: bool,
    /// Add parameters to the kernel command line
    #[arg(short, long, value_name = "PARAMETERS", allow_hyphen_values = true)]
    pub append: Vec<String>,
    /// Run /bin/sh as the init
    #[arg(long)]
    pub shell: bool,
    /// Write the console of the guest to a file instead of this terminal
    #[arg(long, value_name = "FILE")]
    pub console: Option<PathBuf>,
    /// Stop the guest after this time, such as 90s or 5m, and exit with 124
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Stop the guest as soon as its console shows this text, and exit with 0; without the text, with 1
    #[arg(short, long, value_name = "TEXT")]
    pub expect: Option<String>,
    /// Forward a TCP port of this machine to the guest, such as 8080:80. Implies --network user
    #[arg(short, long, value_name = "PORT:GUEST PORT", value_parser = publish)]
    pub publish: Vec<(u16, u16)>,
    /// Network of the guest
    #[arg(long, value_enum, default_value = "none")]
    pub network: Network,
    /// Share a directory with the guest; in it: mount -t 9p share /mnt
    #[arg(long, value_name = "DIR")]
    pub share: Option<PathBuf>,
    /// More arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENT")]
    pub qemu: Vec<OsString>,
}

/// The network of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Network {
    /// None
    None,
    /// A virtio network card behind QEMU's own NAT, configured by DHCP (ip=dhcp)
    User,
}

/// The options of `append`.
#[derive(Debug, Args)]
pub struct Append {
    /// The initramfs to add repot to
    pub initramfs: PathBuf,
    /// The image to write; - is standard output
    #[arg(short, long, value_name = "IMAGE")]
    pub output: PathBuf,
    /// Install repot at this path instead of /init; boot with rdinit=PATH
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    pub rdinit: Option<String>,
    /// Add a setting to /etc/repot.conf, such as size=70% or mode=bind
    #[arg(long, value_name = "KEY=VALUE", value_parser = config::parse)]
    pub config: Vec<Setting>,
    /// Use this init instead of the built-in one
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The image; - is standard input
    pub image: PathBuf,
    /// Print JSON
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
    /// Compression format
    #[arg(short, long, value_enum, default_value = "zstd", value_name = "FORMAT")]
    pub compress: Compression,
    /// Keep the root compressed in the image; /init unpacks it. Needs the least memory
    #[arg(long)]
    pub payload: bool,
    /// Compression level: zstd 1-22 (default 9), gzip 1-9 (6), xz 0-9 (6)
    #[arg(short, long)]
    pub level: Option<u32>,
    /// Add a setting to /etc/repot.conf, such as size=70% or mode=bind
    #[arg(long, value_name = "KEY=VALUE", value_parser = config::parse)]
    pub config: Vec<Setting>,
    /// Use this init instead of the built-in one
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// Name or tag of the container image, if ROOT holds several
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,
    /// Architecture of the container image in OCI terms, such as amd64 or arm64
    #[arg(long, value_name = "ARCH", default_value = oci_architecture())]
    pub arch: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

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

/// The OCI name of this machine's architecture.
fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// A time with a unit: s (the default), m or h.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let seconds = digits.parse::<u32>().ok().filter(|number| *number > 0);
    seconds
        .map(|number| Duration::from_secs(u64::from(number) * unit))
        .ok_or("must be a time such as 90s, 5m or 1h")
}

/// Two ports.
fn publish(text: &str) -> Result<(u16, u16), &'static str> {
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
    let ports = text.split_once(':').and_then(|(here, guest)| Some((port(here)?, port(guest)?)));
    ports.ok_or("must be two ports, such as 8080:80")
}

fn absolute(path: &str) -> Result<String, &'static str> {
    let plain = path.starts_with('/')
        && path.len() > 1
        && path.split('/').skip(1).all(|name| !matches!(name, "" | "." | ".."));
    if plain {
        Ok(path.to_string())
    } else {
        Err("must be an absolute path without . and .., such as /repot")
    }
}
