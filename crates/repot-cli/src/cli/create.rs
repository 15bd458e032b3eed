//! The options of `create`.

use std::path::PathBuf;

use clap::Args;

use super::values;
use crate::codec::Compression;

/// The options of `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// The manifest; - is standard input
    #[arg(default_value = "-")]
    pub manifest: PathBuf,
    /// The image to write; - is standard output
    #[arg(short, long, value_name = "IMAGE")]
    pub output: PathBuf,
    /// Find files below this directory
    #[arg(short = 'C', long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Format of the manifest [default: that of its first line]
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub format: Option<ManifestFormat>,
    /// Compression of what no #cpio line is about [default: that of the name: .zst, .gz, .xz, .lz4, .lzma,
    /// .bz2, .lzo; else none]
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub compress: Option<Compression>,
    /// Its level: zstd 1-22 (default 9), gzip 1-9 (6), xz and lzma 0-9 (6), bzip2 1-9 (9)
    #[arg(short, long)]
    pub level: Option<u32>,
    /// Where nothing is compressed, begin the contents of files at multiples of this many bytes, such as
    /// 4096: btrfs and XFS then share their blocks with the files
    #[arg(long, value_name = "BYTES", value_parser = values::alignment)]
    pub align: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The format of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ManifestFormat {
    /// The list of the kernel's gen_init_cpio: dir /dev 0755 0 0
    List,
    /// The manifest of 3cpio: fields between tabs, of which most can be left out
    Table,
}

/// Examples, and the formats.
pub(super) const HELP: &str = "Examples:
  repot create -o initramfs.cpio < usr/default_cpio_list      the list of the kernel's gen_init_cpio
  repot create manifest -o initrd.img -C rootfs/              the manifest of 3cpio
  find . | repot create -o root.cpio.zst
  repot create list -o root.cpio --align 4096

A list has lines such as
  dir /dev 0755 0 0
  nod /dev/console 0600 0 0 c 5 1
  file /bin/sh ${ROOT}/bin/busybox 0755 0 0 /bin/ls /bin/cat
  slink /init bin/sh 0777 0 0
A table has tabs between location, name, type, mode, uid, gid, mtime, and size, device numbers or target.
What is left out, or -, is that of the file. Lines such as \"#cpio: zstd -9\" begin a new segment with its own
compression (none, zstd, xz, gzip, lz4, lzma, bzip2, lzop); other lines with # are comments.

Neither device nodes nor owners need root. If SOURCE_DATE_EPOCH is set, no time in the image is later than that.
Entries without a time get that, else the latest one of all files.";
