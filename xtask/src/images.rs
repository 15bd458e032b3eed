//! What the tool makes, booted: each kind of source and of compression at least once, on stock kernels, and every
//! entry compared with what went in, attributes included that only the manifest carries.
//!
//! The released `repot` is what packs and boots here, so it is tried with the init it holds.

use crate::boots::{Score, Was, differences, plant};
use crate::kernels::{self, Kernel};
use crate::tool::{Boot, Tool};
use crate::{command, debian, dist, place};
use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, setxattr, utimensat};
use std::fs::{File, create_dir_all, remove_file};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use xtask::account::{Account, Entry, Kind, Line};
use xtask::escape::unhex;
use xtask::snapshot::{Depth, snapshot};

const LIMIT: Duration = Duration::from_secs(300);

/// Differences of one tree that are shown.
const SHOWN: usize = 12;

/// What is in an image besides what was packed.
const ADDED: [&str; 8] =
    [".repot-begin", ".repot-end", ".repot-xattrs", "dev", "dev/console", "dev/kmsg", "dev/null", "init"];

/// What makes the images, with the Debian packages it is in.
pub(crate) const TOOLS: [debian::Tool; 3] = [("cpio", "cpio"), debian::BUSYBOX, ("umoci", "umoci")];

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

/// Makes and boots every image whose name contains `filter`, `jobs` at a time.
pub(crate) fn run(filter: &str, jobs: usize) -> Result<Score> {
    let wanted = IMAGES.iter().filter(|image| format!("image/{}", image.name).contains(filter));
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(Score::default());
    }
    debian::need(&[&[debian::QEMU], &TOOLS[..]].concat())?;
    let (tool, probe) = (Tool::at(dist::tool()?), dist::probe()?);
    let mut all = Vec::new();
    for image in wanted {
        all.push(make(image, &tool, &probe).with_context(|| format!("image {}", image.name))?);
    }
    let (next, score) = (AtomicUsize::new(0), Mutex::new(Score::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(made) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let passed = show(made.image.name, boot(made, &tool));
                    if let Ok(mut score) = score.lock() {
                        score.passed += usize::from(passed);
                        score.failed += usize::from(!passed);
                    }
                }
            });
        }
    });
    Ok(score.into_inner().unwrap_or_default())
}

fn make(image: &'static Image, tool: &Tool, probe: &Path) -> Result<Made> {
    let kernel = kernels::kernel(image.kernel)?;
    let folder = place::fresh(&format!("images/{}", image.name))?;
    let root = folder.join("root");
    create_dir_all(root.join("sbin"))?;
    create_dir_all(root.join("mnt"))?;
    let init = if image.source.appends() { "init" } else { "sbin/init" };
    std::fs::copy(probe, root.join(init)).context("the probe")?;
    plant(&root)?;
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

struct Outcome {
    seconds: f64,
    failures: Vec<String>,
}

fn boot(made: &Made, tool: &Tool) -> Result<Outcome> {
    let append = if made.image.source == Source::Rdinit { "rdinit=/repot" } else { "" };
    let boot = Boot {
        image: &made.path,
        kernel: &made.kernel,
        append,
        memory_mib: 320,
        limit: LIMIT,
        folder: &made.folder,
    };
    let mut run = tool.boot(&boot)?;
    if !run.started() && !run.cut_off {
        // Emulation has its own accidents; they say nothing about what is tested.
        println!("boot image/{}: the kernel died before it started any program; once more", made.image.name);
        run = tool.boot(&boot)?;
    }
    let console = run.console.lines().rev().take(4).collect::<Vec<_>>().join(" | ");
    let failures = match run.report.lines().next_back().map(serde_json::from_str) {
        Some(Ok(Line::After(account))) => failures(made, &account),
        Some(Ok(Line::Broken(what))) => vec![format!("the probe failed: {what}")],
        _ if run.cut_off => vec![format!("the guest did not end; its last words: {console}")],
        _ => vec![format!("no account was given; the last words: {console}")],
    };
    Ok(Outcome { seconds: run.seconds, failures })
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
    failures.extend(found.iter().take(SHOWN).map(|line| format!("tree: {line}")));
    if found.len() > SHOWN {
        failures.push(format!("tree: and {} more", found.len() - SHOWN));
    }
    failures
}

fn show(name: &str, outcome: Result<Outcome>) -> bool {
    match outcome {
        Ok(Outcome { seconds, failures }) if failures.is_empty() => {
            println!("boot image/{name} ... ok ({seconds:.1} s)");
            true
        }
        Ok(Outcome { seconds, failures }) => {
            println!("boot image/{name} ... FAILED ({seconds:.1} s)");
            failures.iter().for_each(|failure| println!("    {failure}"));
            println!("    see target/images/{name}");
            false
        }
        Err(error) => {
            println!("boot image/{name} ... FAILED: {error:#}");
            false
        }
    }
}
