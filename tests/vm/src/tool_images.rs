//! Boots of what the tool packs: each kind of source and of compression at least once, on stock kernels.
//! Every entry is compared with the source, including the attributes that only the manifest carries.
//!
//! The released `repot` packs and boots, so the init inside it is tested too.

use crate::image::{dated, with_xattrs};
use crate::{Boot, LIMIT, differences, fail_if_any, last_lines, programs, shorten, with_second_try};
use anyhow::{Context, Result, bail};
use repot_cli::newc::{Item, Reader, Writer};
use repot_harness::kernels::{self, Kernel};
use repot_harness::tool::{self, Tool};
use repot_harness::{command, debian, place};
use repot_probe::account::{Account, Line};
use repot_snapshot::plant::{Fs, Plant, What, hostile_archive, plant};
use repot_snapshot::{Kind, Snapshot};
use std::fs::{File, create_dir_all};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the new root has besides the source: repot itself and its files are gone.
const ADDED: [&str; 4] = ["dev", "dev/console", "dev/kmsg", "dev/null"];

/// The programs that write the sources, and their Debian packages.
const TOOLS: [debian::Tool; 5] =
    [("bzip2", "bzip2"), ("cpio", "cpio"), debian::BUSYBOX, ("lzop", "lzop"), ("umoci", "umoci")];

/// The sources of the tool's users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// `repot pack DIRECTORY`: everything that a tree can have.
    Directory,
    /// `repot pack ARCHIVE`, written by GNU tar: everything but sockets.
    Tar,
    /// `repot pack LAYOUT`, written by umoci.
    Layout,
    /// `repot append` to an archive by GNU cpio that has its own `/init`, after an uncompressed segment.
    Gnu,
    /// The same by BusyBox cpio.
    Busybox,
    /// `repot append --rdinit`.
    Rdinit,
    /// `repot append` to an archive whose directories are called `bin/` and its files `./init`, as LinuxKit's
    /// builder and bsdtar write them.
    Slashes,
    /// `repot pack INITRAMFS --payload`, of the same archive by GNU cpio.
    Initramfs,
}

struct Image {
    name: &'static str,
    kernel: &'static str,
    source: Source,
    compression: &'static str,
}

/// The oldest format that the kernel reads.
const LZMA: &str = "xz --format=lzma -c";

/// tmpfs has extended attributes of the user namespace only since Linux 6.6.
const IMAGES: [Image; 11] = [
    Image { name: "directory-zstd", kernel: "6.12", source: Source::Directory, compression: "zstd" },
    Image { name: "directory-lz4", kernel: "6.12", source: Source::Directory, compression: "lz4" },
    Image { name: "tar-gzip", kernel: "7", source: Source::Tar, compression: "gzip" },
    Image { name: "oci-xz", kernel: "6.1", source: Source::Layout, compression: "xz" },
    Image { name: "oci-none", kernel: "7", source: Source::Layout, compression: "none" },
    Image { name: "append-gnu-cpio", kernel: "6.12", source: Source::Gnu, compression: "bzip2 -c" },
    Image { name: "append-busybox-cpio", kernel: "6.1", source: Source::Busybox, compression: LZMA },
    Image { name: "append-lzop", kernel: "5.10", source: Source::Gnu, compression: "lzop -c" },
    Image { name: "append-rdinit", kernel: "7", source: Source::Rdinit, compression: "zstd -qc" },
    Image { name: "append-slashes", kernel: "5.10", source: Source::Slashes, compression: "cat" },
    Image { name: "initramfs-payload", kernel: "6.12", source: Source::Initramfs, compression: "bzip2 -c" },
];

/// A packed image, and the tree that it must become.
struct Made {
    image: &'static Image,
    path: PathBuf,
    folder: PathBuf,
    tree: Snapshot,
    kernel: Kernel,
}

/// A boot for each image.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |image: &'static Image| Boot {
        name: format!("image/{}", image.name),
        long: false,
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
    let tree: Vec<Plant> = image.source.tree();
    plant(File::open(&root).context("cannot open the root")?, Fs::Tmpfs, &tree);
    let tree = dated(&root, |_| 0)?;
    write(image, tool, &folder)?;
    Ok(Made { image, path: folder.join("image"), folder, tree, kernel })
}

impl Source {
    /// Whether the root has its own `/init`, which the appended one executes.
    fn appends(self) -> bool {
        !matches!(self, Source::Directory | Source::Tar | Source::Layout)
    }

    /// The part of the hostile tree that the format and the program that writes it can carry.
    fn tree(self) -> Vec<Plant> {
        let tree = hostile_archive();
        let what = |path: &[u8]| tree.iter().find(|plant| plant.path == path).map(|plant| plant.what.clone());
        let carries = |plant: &Plant| {
            let first = if let What::HardLink(first) = &plant.what { what(first) } else { None };
            let socket = plant.what == What::Socket || first == Some(What::Socket);
            match self {
                Source::Directory | Source::Gnu | Source::Slashes | Source::Rdinit | Source::Initramfs => {
                    true
                }
                Source::Layout => !socket,
                // GNU tar makes hard links of regular files only.
                Source::Tar => !socket && matches!(first, None | Some(What::File { .. })),
                // It reads names as lines.
                Source::Busybox => !plant.path.contains(&b'\n'),
            }
        };
        // Archives in newc format have no extended attributes: `repot pack` writes them into a manifest.
        let packed = matches!(self, Source::Directory | Source::Tar);
        let carried = tree.iter().filter(|plant| carries(plant)).cloned();
        carried.map(|plant| with_xattrs(plant, |_| packed)).collect()
    }
}

/// Turns `root` in `folder` into `image` beside it.
fn write(image: &Image, tool: &Tool, folder: &Path) -> Result<()> {
    let shell = |script: &str| command::read(Command::new("sh").current_dir(folder).args(["-ec", script]));
    let pack = |root: &str| tool.run(folder, &["pack", root, "-o", "image", "--compress", image.compression]);
    // After an uncompressed segment, like one with microcode.
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
        Source::Slashes => {
            archive(cpio)?;
            slashes(&folder.join("initramfs")).context("cannot rename the members")?;
            tool.run(folder, &["append", "initramfs", "-o", "image"])?
        }
        Source::Rdinit => {
            archive(cpio)?;
            tool.run(folder, &["append", "initramfs", "-o", "image", "--rdinit", "/repot"])?
        }
        Source::Initramfs => {
            archive(cpio)?;
            tool.run(folder, &["pack", "initramfs", "-o", "image", "--payload"])?
        }
    };
    Ok(())
}

/// Gives the members of an archive names with slashes that are not needed.
fn slashes(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path)?;
    let mut reader = Reader::new(&bytes[..], 0);
    let mut writer = Writer::new(Vec::new());
    let mut archives = Vec::new();
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Member(mut header) => {
                let mut data = Vec::new();
                reader.read_to_end(&mut data)?;
                if header.is_dir() {
                    header.name.push(b'/');
                } else {
                    header.name.splice(..0, *b"./");
                }
                writer.append(&header, &data)?;
            }
            Item::Trailer => {
                archives.append(&mut std::mem::replace(&mut writer, Writer::new(Vec::new())).finish()?);
            }
            Item::Skipped(header, why) => bail!("{}: {why}", header.name.escape_ascii()),
        }
    }
    Ok(std::fs::write(path, archives)?)
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
    let method = if made.image.source == Source::Initramfs { "repot: payload: " } else { "repot: move: " };
    if !after.log.iter().any(|line| line.contains(method)) {
        failures.push(format!("the log has no \"{method}\": {:#?}", after.log));
    }
    for (path, device) in [("dev/console", (5, 1)), ("dev/null", (1, 3)), ("dev/kmsg", (1, 11))] {
        let found = after.tree.get(path.as_bytes());
        if found.is_none_or(|entry| entry.kind != Kind::Char || entry.rdev != device) {
            failures.push(format!("/{path} is {found:?}"));
        }
    }
    // The kernel's built-in archive has /root. `append` adds its settings, and this test a file in its own
    // segment.
    let others: &[&str] = match made.image.source {
        Source::Directory | Source::Tar | Source::Layout => &["root"],
        Source::Gnu | Source::Busybox | Source::Slashes | Source::Initramfs => {
            &["root", "early", "etc", "etc/repot.conf"]
        }
        Source::Rdinit => &["root", "early", "etc", "etc/repot.conf", "repot"],
    };
    let compared = |tree: &Snapshot| -> Snapshot {
        let mut tree = tree.clone();
        tree.retain(|path, _| {
            let is = |name: &&str| name.as_bytes() == path.as_slice();
            !(ADDED.iter().any(is) || others.iter().any(is))
        });
        tree
    };
    let found = differences(&compared(&made.tree), &compared(&after.tree), &["init"]);
    failures.extend(shorten(&found));
    failures
}
