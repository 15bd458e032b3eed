//! `cargo xtask initrds`: what Debian's tools make, as `repot` reads it, compared with GNU cpio: each name of
//! `ls`, and each entry that `extract` writes.
//!
//! The roots in which the tools run are built by debootstrap, and kept.

use super::document;
use super::trees::Tree;
use anyhow::{Context, Result, ensure};
use repot_harness::command::read;
use repot_harness::{build, debian, place};
use repot_snapshot::{Atime, Holes, Kind, Rules, difference, snapshot};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compare `ls` and `extract` with cpio on the initramfs images of Debian's tools.
#[derive(Debug, clap::Parser)]
#[command(
    name = "cargo xtask initrds",
    bin_name = "cargo xtask initrds",
    after_help = "Examples:\n  cargo xtask initrds\n  cargo xtask initrds dracut --tool target/debug/repot"
)]
pub(crate) struct Initrds {
    /// Part of the name of the images to compare [default: all, and the page is written]
    filter: Option<String>,
    /// The tool to test [default: build it]
    #[arg(long, value_name = "FILE")]
    tool: Option<PathBuf>,
}

/// A program that makes an initramfs.
struct Maker {
    name: &'static str,
    packages: &'static str,
    /// A shell line in its root: `$V` is the kernel, the image goes to `/image`. And what decompresses that.
    lines: &'static [(&'static str, &'static str, &'static str)],
}

const MAKERS: [Maker; 4] = [
    Maker {
        name: "initramfs-tools",
        packages: "initramfs-tools,linux-image-amd64,zstd,lz4,xz-utils,bzip2,lzop",
        lines: &[
            ("zstd", "mkinitramfs -c zstd -o /image $V", "zstd -dcq"),
            ("gzip", "mkinitramfs -c gzip -o /image $V", "gzip -dc"),
            ("xz", "mkinitramfs -c xz -o /image $V", "xz -dc"),
            ("lz4", "mkinitramfs -c lz4 -o /image $V", "lz4 -dcq"),
            ("bzip2", "mkinitramfs -c bzip2 -o /image $V", "bzip2 -dc"),
            ("lzma", "mkinitramfs -c lzma -o /image $V", "xz --format=lzma -dc"),
            ("lzop", "mkinitramfs -c lzop -o /image $V", "lzop -dc"),
        ],
    },
    Maker {
        name: "dracut",
        // The package dracut conflicts with initramfs-tools, which debootstrap takes for the kernel.
        packages: "dracut-core,linux-image-cloud-amd64,zstd",
        lines: &[
            ("zstd", "dracut --force --zstd --no-hostonly /image $V", "zstd -dcq"),
            ("uncompressed", "dracut --force --no-compress --no-hostonly /image $V", "cat"),
        ],
    },
    Maker {
        name: "tiny-initramfs",
        packages: "tiny-initramfs-core,linux-image-cloud-amd64",
        lines: &[("gzip", "mktirfs -o /image $V", "gzip -dc")],
    },
    Maker {
        name: "live-boot",
        packages: "live-boot,live-boot-initramfs-tools,linux-image-cloud-amd64,zstd",
        lines: &[("zstd", "mkinitramfs -c zstd -o /image $V", "zstd -dcq")],
    },
];

/// An image.
pub(crate) struct Made {
    /// Maker and compression.
    pub(crate) name: String,
    pub(crate) image: PathBuf,
    /// The root of its maker.
    pub(crate) root: PathBuf,
    decompressor: &'static str,
}

/// Makes the images whose name contains a filter. Those of an earlier run are kept.
pub(crate) fn made(filter: &str) -> Result<Vec<Made>> {
    let folder = place::kept("bench/initrds")?;
    let mut all = Vec::new();
    for maker in &MAKERS {
        let names = maker
            .lines
            .iter()
            .map(|(name, line, decompressor)| (format!("{}-{name}", maker.name), line, decompressor));
        for (name, line, decompressor) in names.filter(|(name, ..)| name.contains(filter)) {
            let tree = Tree::debian(&format!("initrds-{}", maker.name), maker.packages, maker.name);
            tree.prepare()?;
            let (root, image) = (tree.kept()?, folder.join(&name));
            if !image.exists() {
                println!("making {name}");
                let script = format!(
                    "set -e; mount --make-rprivate /; mount -t proc proc \"$0/proc\"; mount -t devtmpfs dev \"$0/dev\"; \
                     exec chroot \"$0\" sh -ec 'V=$(ls /lib/modules | tail -1); {line} >/dev/null 2>&1; chmod 644 /image'"
                );
                read(
                    Command::new("unshare").args(["-m", "sh", "-c", &script]).arg(&root).env_remove("TMPDIR"),
                )
                .with_context(|| format!("cannot make {name}"))?;
                fs::copy(root.join("image"), &image).with_context(|| format!("cannot keep {name}"))?;
            }
            all.push(Made { name, image, root, decompressor });
        }
    }
    Ok(all)
}

/// Compares all images, and writes the page unless there is a filter.
pub(crate) fn initrds(Initrds { filter, tool }: &Initrds) -> Result<()> {
    debian::need_root("the comparison")?;
    debian::need(&[
        ("cpio", "cpio"),
        ("zstd", "zstd"),
        ("lz4", "lz4"),
        ("lzop", "lzop"),
        ("bzip2", "bzip2"),
    ])?;
    let tool = tool.clone().map_or_else(|| build::tool(&[build::Arch::X86_64]), Ok)?;
    let tool = tool.canonicalize().context("no such tool")?;
    let all = made(filter.as_deref().unwrap_or_default())?;
    ensure!(!all.is_empty(), "no image has such a name");
    let mut page = PAGE.to_owned();
    let mut failed = Vec::new();
    for made in &all {
        let bytes = made.image.metadata()?.len();
        let result = compare(&tool, made)?;
        let same = match &result {
            Ok(entries) => format!("{entries} entries, all the same"),
            Err(what) => {
                failed.push(made.name.clone());
                what.clone()
            }
        };
        println!("{}: {same}", made.name);
        let _ = writeln!(
            page,
            "| {} | {} KiB | {} |",
            made.name,
            bytes >> 10,
            same.lines().next().unwrap_or_default()
        );
    }
    if filter.is_none() {
        document::write("../tool/initrds.md", &page)?;
    }
    ensure!(failed.is_empty(), "not the same: {}", failed.join(", "));
    Ok(())
}

const PAGE: &str = "# The initramfs images of Debian's tools\n\n\
    `cargo xtask initrds` lets Debian's tools make an initramfs in a root of their own, and compares `repot ls` and \
    `repot extract` with GNU cpio, segment by segment, behind the program of the compression: each name in its order; then type, mode, owner, \
    time, contents, target, device and hard links of each entry that is extracted as root. Times are those of files, \
    since GNU cpio does not keep those of directories and links.\n\n\
    | image | size | compared with cpio |\n|---|---:|---|\n";

/// The number of entries, or what is not the same.
fn compare(tool: &Path, made: &Made) -> Result<std::result::Result<usize, String>> {
    let folder = place::fresh("bench/initrds.compare")?;
    let shell = |line: &str| {
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("set -o pipefail; {line}")).current_dir(&folder);
        read(shell.env("IMAGE", &made.image).env("REPOT", tool)).with_context(|| made.name.clone())
    };
    let image = fs::read(&made.image)?;
    let parts = split(&image, made.decompressor)?;
    let mut theirs = String::new();
    fs::create_dir(folder.join("theirs"))?;
    for (number, (part, decompressor)) in parts.iter().enumerate() {
        fs::write(folder.join(format!("part{number}")), part)?;
        theirs += &shell(&format!("{decompressor} < part{number} | cpio -t --quiet"))?;
        theirs.push('\n');
        shell(&format!("cd theirs && umask 0 && {decompressor} < ../part{number} | cpio -idmu --quiet"))?;
    }
    let ours = shell("$REPOT ls $IMAGE")?;
    if let Some((left, right)) = theirs.lines().zip(ours.lines()).find(|(left, right)| left != right) {
        return Ok(Err(format!("ls: {right} instead of {left}")));
    }
    if theirs.lines().count() != ours.lines().count() {
        return Ok(Err("ls: another number of names".into()));
    }
    shell("$REPOT extract $IMAGE -C ours")?;
    let of = |name: &str| -> Result<_> { Ok(snapshot(File::open(folder.join(name))?)?) };
    let (mut theirs, ours) = (of("theirs")?, of("ours")?);
    for (path, entry) in &mut theirs {
        // cpio sets the times of links not at all, and those of directories before it fills them.
        let unset = matches!(entry.kind, Kind::Symlink | Kind::Dir);
        if let Some(other) = ours.get(path).filter(|_| unset) {
            entry.mtime = other.mtime;
        }
    }
    let rules = Rules { atime: Atime::Ignored, holes: Holes::Ignored, ..Rules::EXACT };
    let differs = difference(&theirs, &ours, rules);
    fs::remove_dir_all(&folder).context("cannot remove the extracted trees")?;
    Ok(if differs.is_empty() { Ok(ours.len()) } else { Err(format!("extract: {differs}")) })
}

/// The uncompressed archives in front of an image, and what follows them, each with its decompressor. This is
/// not the reader that is tested.
fn split<'a>(image: &'a [u8], decompressor: &'static str) -> Result<Vec<(&'a [u8], &'static str)>> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while image[at..].starts_with(b"070701") {
        let start = at;
        loop {
            let number = |offset: usize| -> Result<usize> {
                let digits = image.get(at + offset..at + offset + 8).context("a header is truncated")?;
                Ok(usize::from_str_radix(std::str::from_utf8(digits)?, 16)?)
            };
            let (size, name) = (number(54)?, number(94)?);
            let is_last = image[at + 110..].starts_with(b"TRAILER!!!");
            at = (at + 110 + name).next_multiple_of(4) + size.next_multiple_of(4);
            if is_last {
                break;
            }
        }
        parts.push((&image[start..at], "cat"));
        at += image[at..].iter().take_while(|byte| **byte == 0).count();
    }
    if at < image.len() {
        parts.push((&image[at..], decompressor));
    }
    Ok(parts)
}
