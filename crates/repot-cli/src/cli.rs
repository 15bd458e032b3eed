//! The command line: every command with its options and examples.

mod create;
mod guest;
mod help;
mod here;
mod init;
mod look;
mod share;
mod uki;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use repot::run::OnExit;

use crate::codec::Compression;
use crate::image::config::{self, Setting};
use crate::modules;
use crate::report::size;

pub use self::create::{Create, ManifestFormat};
pub use self::guest::{Machine, Network};
pub use self::help::{Completions, Man};
pub use self::here::{PlanArgs, Rehearse};
pub use self::init::Init;
pub use self::look::{Aspect, Cat, Diff, Extract, Ls};
pub use self::share::Share;
pub use self::uki::Uki;

/// What `--version` prints. `-V` prints only the number.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\ninside: ", env!("REPOT_INSIDE"));

/// Pack, inspect, boot and rehearse initramfs images that move their root onto a tmpfs
#[derive(Debug, Parser)]
#[command(name = "repot", version, long_version = VERSION, propagate_version = true, max_term_width = 100)]
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
    /// Build an initramfs from a directory, a tar archive, a container image or another initramfs
    #[command(after_help = "Examples:
  repot pack rootfs/ -o image.zst
  repot pack rootfs.tar.xz -o image.xz --compress xz
  podman export c1 | repot pack - -o image.zst --config size=70%
  repot pack oci-layout/ --image latest -o image.zst
  repot pack rootfs/ --payload -o image.cpio         boots in the least memory
  repot pack /boot/initrd.img --payload -o image.cpio
  repot pack rootfs/ --owner 0:0 --devices devices.txt -o image.zst
  repot pack saved.tar --image busybox --arch arm/v7 -o image.zst
  repot pack rootfs/ --payload -o image.cpio --modules auto --config zram=auto
      in even less: swap in compressed memory, with the driver from the root's /lib/modules
  repot pack saved.tar --run -o vm.img               the image's program as a machine: docs/run.md
  repot pack rootfs/ -o vm.img -- /usr/bin/serve --port 80
  repot pack rootfs/ -o image.efi --uki --kernel /boot/vmlinuz --cmdline 'console=ttyS0'
  repot pack --json rootfs/ -o image.zst | jq .ram.tmpfs

ROOT is a directory, a tar archive, an initramfs, an OCI image layout (a directory or an archive),
or the output of docker save. Archives may be compressed with gzip, xz, zstd, lz4, bzip2, lzma,
lzo, lzip or compress. The same input always gives the same bytes. If SOURCE_DATE_EPOCH is set, no
timestamp in the image is later than that.

Under fakeroot and pseudo, a directory is read through the tar of the system, because this program
is static. Otherwise use --fakeroot, --owner and --devices, or a pipe: pseudo tar -c . | repot pack -")]
    Pack(Box<Pack>),

    /// Show what is in an initramfs, how much memory it needs, and what is wrong with it
    #[command(after_help = "Examples:
  repot inspect image.zst
  repot inspect /boot/initrd.img-6.1.0-40-amd64
  repot inspect --json image.zst | jq .ram

Reads every initramfs that the kernel reads, whichever tool made it. A corrupt image is shown up to
the corruption, and the exit code is 1.")]
    Inspect(Inspect),

    /// List what is in an initramfs
    #[command(after_help = "Examples:
  repot ls /boot/initrd.img
  repot ls -l initrd.img 'usr/lib/modules/**/zram*'
  repot ls --json vmlinuz.efi | jq -r '.[] | select(.overridden) | .name'

A pattern with a slash fits a path from the root on, one without fits a name anywhere; what is below a
directory that fits is listed too. * and ? stand for any bytes but a slash, ** for any bytes.

Members are listed in their order, segment by segment; entries of a payload follow. The first column of -l
is the number of the segment. A corrupt image is listed up to the corruption, and the exit code is 1.")]
    Ls(Ls),

    /// Print a file of an initramfs
    #[command(after_help = "Examples:
  repot cat /boot/initrd.img etc/fstab
  repot cat initrd.img bin/busybox > busybox           links are followed inside the image
  repot cat initrd.img kernel/x86/microcode/GenuineIntel.bin --segment 1 | iucode_tool -l -")]
    Cat(Cat),

    /// Unpack an initramfs into a directory
    #[command(after_help = "Examples:
  sudo repot extract /boot/initrd.img -C root
  repot extract initrd.img -C out 'usr/lib/firmware/**'
  repot extract initrd.img -C out --parts              out/1, out/2, ... for the segments

As root, every entry gets all of its attributes. Without, what needs root is reported and left out.
Nothing outside the directory is written, and nothing in it is replaced, unless --overwrite is given.
What is not complete does not appear under its name.")]
    Extract(Extract),

    /// Compare two roots: initramfs, directory, tar archive or container image
    #[command(after_help = "Examples:
  repot diff initrd.img-6.1.0-50 initrd.img-6.1.0-51
  repot diff rootfs/ image.zst --ignore time
  repot diff --json old.img new.img | jq -r '.added[]'

Lines begin with + (only in B), - (only in A) or ~ (in both, with what differs from A to B). Images are
compared as the kernel unpacks them, with their attributes and payloads.

Exit codes: 0 no differences, 1 differences or failure, 2 wrong usage.")]
    Diff(Diff),

    /// Write an archive from a manifest, without a directory to copy from
    #[command(after_help = create::HELP)]
    Create(Create),

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
  repot boot image.efi                               a unified kernel image: with its kernel and command line
  repot boot image.efi --firmware                    the same, but UEFI starts it
  repot boot image.zst --shell                       run a shell on the new root
  repot boot image.zst --memory 400M --append 'rootfstype=ramfs repot.log=debug'
  repot boot image.zst --timeout 2m --expect 'login:'
      for scripts: exits with 0 once the console shows the text
  repot boot vm.img --publish 8080:80                a web server
  repot boot vm.img --exec 'nginx -t'                another program of the same image; exits with its code
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

    /// Write repot's own /init to a file, for an image build of your own
    #[command(after_help = "Examples:
  repot init -o rootfs/init
  repot init --payload --arch aarch64 -o init-payload

The files are those that pack and append put into an image: docs/architectures.md.")]
    Init(Init),

    /// Print a completion script for a shell, or install it
    #[command(after_help = help::COMPLETIONS)]
    Completions(Completions),

    /// Print the manual page, or install all of them
    #[command(after_help = help::MAN)]
    Man(Man),
}

/// The options of `boot`.
#[derive(Debug, Clone, Args)]
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
    /// Boot an image even if it is corrupt, to see what happens
    #[arg(long)]
    pub force: bool,
    /// Run /bin/sh as the init
    #[arg(long)]
    pub shell: bool,
    /// Run this command instead of the image's own program or init, and exit with its exit code. Quotes work
    /// as in a shell, but nothing is expanded
    #[arg(long, value_name = "COMMAND", conflicts_with = "shell")]
    pub exec: Option<String>,
    /// Boot a unified kernel image whole, by UEFI firmware: the one that is installed (OVMF), or this one.
    /// The command line is that of the image
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
        conflicts_with_all = ["kernel", "append", "shell", "exec", "publish", "network", "share"])]
    pub firmware: Option<Option<PathBuf>>,
    /// QEMU's machine, if it is not the usual one of this architecture
    #[arg(long, value_enum)]
    pub machine: Option<Machine>,
    /// Write the console of the guest to a file instead of this terminal
    #[arg(long, value_name = "FILE")]
    pub console: Option<PathBuf>,
    /// Stop the guest after this time, such as 90s or 5m, and exit with 124
    #[arg(short, long, value_name = "TIME", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// Stop the guest as soon as its console shows this text, and exit with 0; without the text, with 1
    #[arg(short, long, value_name = "TEXT")]
    pub expect: Option<String>,
    /// Forward a TCP port of this machine to the guest, such as 8080:80. Implies --network user
    #[arg(short, long, value_name = "PORT:GUEST PORT", value_parser = values::publish)]
    pub publish: Vec<(u16, u16)>,
    /// Network of the guest
    #[arg(long, value_enum, default_value = "none")]
    pub network: Network,
    /// Share a directory with the guest, by default as /mnt/NAME; with :ro read-only. May be repeated
    #[arg(long, value_name = "DIR[:PATH[:ro]]")]
    pub share: Vec<Share>,
    /// More arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGUMENT")]
    pub qemu: Vec<OsString>,
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
    #[arg(long, value_name = "PATH", value_parser = values::absolute)]
    pub rdinit: Option<String>,
    /// Add a setting to /etc/repot.conf, such as size=70% or mode=bind
    #[arg(long, value_name = "KEY=VALUE", value_parser = config::parse)]
    pub config: Vec<Setting>,
    /// Add the modules that zram= needs, from the folder of a kernel such as /lib/modules/6.12.0, or
    /// with "auto" from this machine's. For several kernels, repeat it
    #[arg(long, value_name = "DIR|auto", value_parser = modules::parse)]
    pub modules: Vec<modules::Choice>,
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
    /// Size of a page of the kernel, for the memory to boot [default: that of most kernels]
    #[arg(long, value_name = "4k|16k|64k", value_parser = values::page_size)]
    pub page_size: Option<u64>,
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
    /// Compression format [default: that of the name: .gz, .xz, .lz4, .lzma, .bz2, .lzo; else zstd]
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub compress: Option<Compression>,
    /// Keep the root compressed in the image; /init unpacks it. Needs the least memory
    #[arg(long)]
    pub payload: bool,
    /// Compression level: zstd 1-22 (default 9), gzip 1-9 (6), xz and lzma 0-9 (6), bzip2 1-9 (9)
    #[arg(short, long)]
    pub level: Option<u32>,
    /// Add a setting to /etc/repot.conf, such as size=70% or mode=bind
    #[arg(long, value_name = "KEY=VALUE", value_parser = config::parse)]
    pub config: Vec<Setting>,
    /// Add the modules that zram= needs, from the folder of a kernel such as /lib/modules/6.12.0, or
    /// with "auto" from the root's own /lib/modules, else from this machine's. For several kernels, repeat it
    #[arg(long, value_name = "DIR|auto", value_parser = modules::parse)]
    pub modules: Vec<modules::Choice>,
    /// Use this init instead of the built-in one
    #[arg(long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// Do everything but write the image: its size, memory and warnings
    #[arg(long)]
    pub dry_run: bool,
    /// Leave out what fits a pattern, such as usr/share/doc or '*.pyc'. May be repeated
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Give everything this owner and group, such as 0:0
    #[arg(long, value_name = "UID:GID", value_parser = values::owner)]
    pub owner: Option<(u32, u32)>,
    /// Take owners and device nodes of a directory from the state that `fakeroot -s FILE` saved
    #[arg(long, value_name = "FILE", conflicts_with = "owner")]
    pub fakeroot: Option<PathBuf>,
    /// Add the device nodes in a list, in the format of makedevs or gen_init_cpio
    #[arg(long, value_name = "FILE")]
    pub devices: Vec<PathBuf>,
    /// Name, tag or digest of the container image, if ROOT holds several
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,
    /// Architecture of the container image in OCI terms, such as amd64, arm64 or arm/v7
    #[arg(long, value_name = "ARCH", default_value = values::oci_architecture())]
    pub arch: String,
    /// How one program is run instead of an init
    #[command(flatten)]
    pub program: RunOptions,
    /// The parts of a unified kernel image
    #[command(flatten)]
    pub uki: Uki,
    /// Size of a page of the kernel, for the memory to boot [default: that of most kernels]
    #[arg(long, value_name = "4k|16k|64k", value_parser = values::page_size)]
    pub page_size: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// One program instead of an init.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for an image that runs one program")]
pub struct RunOptions {
    /// Run the program of the container image instead of an init. The default if the image has no init
    #[arg(long)]
    pub run: bool,
    /// Boot an init even if the container image has a program
    #[arg(long, conflicts_with_all = ["run", "args"])]
    pub no_run: bool,
    /// Set an environment variable of the program
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Its working directory
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Its user: USER, UID, USER:GROUP or UID:GID, resolved in the image
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Load this kernel module before it starts, such as virtio_net, from the folders of --modules. May be
    /// repeated
    #[arg(long, value_name = "MODULE")]
    pub driver: Vec<String>,
    /// What happens when it ends
    #[arg(long, value_name = "ACTION", value_parser = values::onexit)]
    pub onexit: Option<OnExit>,
    /// The program and its arguments, instead of those of the container image
    #[arg(last = true, value_name = "PROGRAM")]
    pub args: Vec<String>,
}
