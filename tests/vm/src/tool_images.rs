//! What the tool makes, booted: each kind of source and of compression at least once, on stock kernels, and every
//! entry compared with what went in, attributes included that only the manifest carries.
//!
//! The released `repot` is what packs and boots here, so it is tried with the init it holds.

use crate::compare::{Was, differences};
use crate::{Boot, LIMIT, fail_if_any, hostile, last_lines, programs, shorten, with_second_try};
use anyhow::{Context, Result};
use repot_harness::kernels::{self, Kernel};
use repot_harness::tool::{self, Tool};
use repot_harness::{command, debian, place};
use repot_probe::account::{Account, Entry, Kind, Line};
use repot_probe::escape::unhex;
use repot_probe::snapshot::{Depth, snapshot};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, setxattr, utimensat};
use std::fs::{File, create_dir_all, remove_file};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is in an image besides what was packed.
const ADDED: [&str; 8] =
    [".repot-begin", ".repot-end", ".repot-xattrs", "dev", "dev/console", "dev/kmsg", "dev/null", "init"];

/// What makes the images, with the Debian packages it is in.
const TOOLS: [debian::Tool; 3] = [("cpio", "cpio"), debian::BUSYBOX, ("umoci", "umoci")];

/// What a user of the tool has at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// `repot pack DIRECTORY`: everything a tree can have.
    Directory,
    /// `repot pack ARCHIVE`, by GNU tar: everything but sockets.
    Tar,
    /// `repot pack LAYOUT`, by umoci.
    Layout,
    /// `repot append` to an archive by GNU cpio, with its own `/init`, behind a plain segment.
    Gnu,
    /// The same by BusyBox cpio.
    Busybox,
    /// `repot append --rdinit`.
    Rdinit,
}

struct Image {
    name: &'static str,
    kernel: &'static str,
    source: Source,
    compression: &'static str,
}

/// The kernels that the Debian roots of users have; xattrs of the user came to tmpfs in 6.6.
const IMAGES: [Image; 8] = [
    Image { name: "directory-zstd", kernel: "6.12", source: Source::Directory, compression: "zstd" },
    Image { name: "directory-lz4", kernel: "6.12", source: Source::Directory, compression: "lz4" },
    Image { name: "tar-gzip", kernel: "7", source: Source::Tar, compression: "gzip" },
    Image { name: "oci-xz", kernel: "6.1", source: Source::Layout, compression: "xz" },
    Image { name: "oci-none", kernel: "7", source: Source::Layout, compression: "none" },
    Image { name: "append-gnu-cpio", kernel: "6.12", source: Source::Gnu, compression: "gzip -c" },
    Image { name: "append-busybox-cpio", kernel: "6.1", source: Source::Busybox, compression: "cat" },
    Image { name: "append-rdinit", kernel: "7", source: Source::Rdinit, compression: "zstd -qc" },
];

/// An image that was made, and the entries it must turn into.
struct Made {
    image: &'static Image,
    path: PathBuf,
    folder: PathBuf,
    entries: Vec<Entry>,
    kernel: Kernel,
}

/// A boot for each image.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |image: &'static Image| Boot {
        name: format!("image/{}", image.name),
        run: Box::new(move || {
            debian::need(&[&[debian::QEMU], &TOOLS[..]].concat())?;
            debian::need_root("building the images of the boots")?;
            let tool = Tool::at(programs::tool()?.to_owned());
            let made = make(image, &tool, programs::probe()?).context("cannot build the image")?;
            boot(&made, &tool)
        }),
    };
    IMAGES.iter().map(boot).collect()
}

fn make(image: &'static Image, tool: &Tool, probe: &Path) -> Result<Made> {
    let kernel = kernels::kernel(image.kernel)?;
    let folder = place::fresh(&format!("images/{}", image.name))?;
    let root = folder.join("root");
    create_dir_all(root.join("sbin"))?;
    create_dir_all(root.join("mnt"))?;
    let init = if image.source.appends() { "init" } else { "sbin/init" };
    std::fs::copy(probe, root.join(init)).context("the probe")?;
    hostile::add(&root)?;
    for path in image.source.cannot_hold() {
        remove_file(root.join(path)).with_context(|| format!("cannot remove {path}"))?;
    }
    if matches!(image.source, Source::Directory | Source::Tar) {
        attributes(&root)?;
    }
    let mut entries = dated(&root)?;
    write(image, tool, &folder)?;
    if matches!(image.source, Source::Gnu | Source::Busybox) {
        // It has another name now; repot has its old one.
        entries
            .iter_mut()
            .filter(|entry| entry.path == "init")
            .for_each(|entry| entry.path = "init.real".into());
    }
    Ok(Made { image, path: folder.join("image"), folder, entries, kernel })
}

impl Source {
    /// Whether the root has an `/init` of its own, which the appended one runs.
    fn appends(self) -> bool {
        matches!(self, Source::Gnu | Source::Busybox | Source::Rdinit)
    }

    /// What of the tree the format or the tool that writes it has no way to say.
    fn cannot_hold(self) -> &'static [&'static str] {
        match self {
            Source::Directory | Source::Gnu | Source::Rdinit => &[],
            Source::Layout => &["specials/socket"],
            // GNU tar makes links of regular files only.
            Source::Tar => &[
                "specials/socket",
                "links/b/fifo",
                "links/b/c/a-fifo",
                "links/b/device",
                "links/b/c/a-device",
            ],
            // It reads names as lines.
            Source::Busybox => &["names/new\nline"],
        }
    }
}

/// Turns `root` in `folder` into `image` beside it.
fn write(image: &Image, tool: &Tool, folder: &Path) -> Result<()> {
    let shell = |script: &str| command::read(Command::new("sh").current_dir(folder).args(["-ec", script]));
    let pack = |root: &str| tool.run(folder, &["pack", root, "-o", "image", "--compress", image.compression]);
    // Behind a plain segment, as one with microcode is.
    let archive = |writer: &str| {
        let early =
            "mkdir early && echo microcode > early/early && cd early && echo early | cpio -o -H newc --quiet";
        shell(&format!("({early}) > initramfs; (cd root && {writer}) | {} >> initramfs", image.compression))
    };
    let cpio = "find . -print0 | cpio -0 -o -H newc --quiet";
    match image.source {
        Source::Directory => pack("root")?,
        Source::Tar => {
            shell("tar -C root --format=pax --xattrs --xattrs-include='*' -czf root.tar.gz .")?;
            pack("root.tar.gz")?
        }
        Source::Layout => {
            shell(
                "umoci init --layout oci && umoci new --image oci:t && umoci unpack --image oci:t bundle && \
                 cp -a root/. bundle/rootfs && umoci repack --image oci:t bundle",
            )?;
            pack("oci")?
        }
        Source::Gnu => {
            archive(cpio)?;
            tool.run(folder, &["append", "initramfs", "-o", "image"])?
        }
        Source::Busybox => {
            archive("find . | busybox cpio -o -H newc 2> /dev/null")?;
            tool.run(folder, &["append", "initramfs", "-o", "image"])?
        }
        Source::Rdinit => {
            archive(cpio)?;
            tool.run(folder, &["append", "initramfs", "-o", "image", "--rdinit", "/repot"])?
        }
    };
    Ok(())
}

/// What an archive cannot carry and the manifest does: capabilities, lists, attributes of the user.
fn attributes(root: &Path) -> Result<()> {
    let list = "0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000000ffffffff";
    for (path, name, value) in [
        ("sbin/init", "security.capability", "0100000200200000000000000000000000000000"),
        ("sizes/4097", "system.posix_acl_access", list),
        ("sizes/many", "system.posix_acl_default", list),
        ("sizes/4097", "user.note", "c3a9"),
        ("links/z-file", "user.on-a-link", "00ff0a5c"),
        ("names/new\nline", "user.odd.name=", ""),
        ("names/back\\slash", "trusted.note", "31"),
        ("", "user.of.the.root", "72"),
    ] {
        let value = unhex(value).context("hexadecimal")?;
        setxattr(root.join(path), name, &value, XattrFlags::empty())
            .with_context(|| format!("{name} of {path:?} (the file system of target/ must have it)"))?;
    }
    Ok(())
}

/// The tree's entries as an initramfs turns them out, each with a time of its own, in whole seconds.
fn dated(root: &Path) -> Result<Vec<Entry>> {
    let look = |attributes| -> Result<Vec<Entry>> {
        let root = File::open(root).with_context(|| format!("cannot open {}", root.display()))?;
        let entries = snapshot(root.as_fd(), Depth { attributes, restore: false }).context("snapshot");
        // Attributes are looked at from within.
        std::env::set_current_dir(place::checkout())?;
        entries
    };
    // Directories after what is in them: making an entry changes its directory's time.
    for (number, entry) in look(false)?.iter().enumerate().rev() {
        // The list shows names of odd bytes in another form; those keep the time at which they were made.
        let path = root.join(&entry.path);
        if path.symlink_metadata().is_ok() {
            let time = Timespec { tv_sec: 1_000_000_000 + i64::try_from(number)? * 1009, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    let mut entries = look(true)?;
    for entry in &mut entries {
        // What is the disk's business, and the access time, which the kernel sets to the other.
        (entry.flags, entry.atime) = (0, entry.mtime);
        entry.blocks = entry.size.div_ceil(4096) * 8;
    }
    Ok(entries)
}

fn boot(made: &Made, tool: &Tool) -> Result<()> {
    let append = if made.image.source == Source::Rdinit { "rdinit=/repot" } else { "" };
    let boot = tool::Boot {
        image: &made.path,
        kernel: &made.kernel,
        append,
        memory_mib: 320,
        limit: LIMIT,
        folder: &made.folder,
    };
    let run = with_second_try(|| tool.boot(&boot))?;
    let console = last_lines(&run.console);
    let failures = match run.report.lines().next_back().map(serde_json::from_str) {
        Some(Ok(Line::After(account))) => failures(made, &account),
        Some(Ok(Line::Broken(what))) => vec![format!("the probe failed: {what}")],
        _ if run.cut_off => vec![format!("the guest did not end; its last lines: {console}")],
        _ => vec![format!("the probe sent no report; the last lines: {console}")],
    };
    fail_if_any(&failures, &made.folder)
}

fn failures(made: &Made, after: &Account) -> Vec<String> {
    let mut failures = Vec::new();
    let root = after.mounts.iter().find(|mount| mount.point == "/").map(|mount| mount.kind.as_str());
    if (root, after.pivot_root.as_str()) != (Some("tmpfs"), "ok") {
        failures.push(format!("/ is {root:?}, pivot_root {}", after.pivot_root));
    }
    if !after.log.iter().any(|line| line.contains("repot: move: ")) {
        failures.push(format!("the log says {:#?}", after.log));
    }
    for (path, device) in [("dev/console", (5, 1)), ("dev/null", (1, 3)), ("dev/kmsg", (1, 11))] {
        let found = after.entries.iter().find(|entry| entry.path == path);
        if found.is_none_or(|entry| entry.kind != Kind::Character || entry.device != Some(device)) {
            failures.push(format!("/{path} is {found:?}"));
        }
    }
    // The kernel's own archive makes /root; append adds its settings, and the test a file in a segment of its own.
    let others: &[&str] = match made.image.source {
        Source::Directory | Source::Tar | Source::Layout => &["root"],
        Source::Gnu | Source::Busybox => &["root", "early", "etc", "etc/repot.conf"],
        // /init is the image's own.
        Source::Rdinit => &["root", "early", "etc", "etc/repot.conf", "repot"],
    };
    let own = |entry: &Entry| {
        let added = ADDED.contains(&entry.path.as_str()) || others.contains(&entry.path.as_str());
        !added || (entry.path == "init" && made.image.source == Source::Rdinit)
    };
    let (mut was, mut is) = (made.entries.clone(), after.entries.clone());
    is.retain(own);
    was.retain(own);
    let found = differences(&was, Was::Before, &is, &["init.real"]);
    failures.extend(shorten(&found));
    failures
}
