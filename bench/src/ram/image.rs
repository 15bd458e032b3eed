//! The image of one contender: the tree, its `/init`, the stand-in for the real init.

use crate::contenders::Peer;
use crate::guest_output::GuestOutput;
use crate::trees::Tree;
use crate::{payload_images, programs};
use anyhow::{Context, Result};
use repot_cli::codec::{Compression, Encoder};
use repot_harness::{build, command, kernels, place};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use std::fs::{self, File, Permissions};
use std::io::{Write, copy};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A packed tree.
pub(super) struct Image {
    pub(super) tree: String,
    pub(super) name: String,
    /// A description for tables.
    pub(super) about: String,
    pub(super) archive: PathBuf,
    /// The tally that the stand-in must find.
    pub(super) tally: String,
    /// Where the search begins, in MiB.
    pub(super) guess: u32,
}

/// An `/init` and its name.
struct Kind {
    name: String,
    about: String,
    init: Init,
    /// How much of the tree is in memory at the peak, in quarters.
    quarters: u32,
}

enum Init {
    Program(PathBuf),
    Script(&'static str),
    /// The whole image is written by `repot pack --payload` with these arguments.
    Payload(Vec<String>),
}

/// A script that copies first and deletes later. Its tmpfs needs 90% of the memory; the default is half.
/// Debian's BusyBox tar cannot exclude files, so the script lists what to copy.
macro_rules! script {
    ($copy:literal) => {
        concat!(
            "#!/bin/busybox sh\nset -e\nb=/bin/busybox\n$b mount -t tmpfs -o size=90% tmpfs /mnt\ncd /\nset --\n",
            "for f in * .[!.]*; do\n[ \"$f\" = mnt ] || [ ! -e \"$f\" -a ! -L \"$f\" ] || set -- \"$@\" \"$f\"\ndone\n",
            $copy,
            "\n$b mkdir /mnt/mnt\nexec $b switch_root /mnt /sbin/init\n"
        )
    };
}

const TAR: &str = script!("$b tar -cf - \"$@\" | $b tar -C /mnt -xpf -");
const CP: &str = script!("$b cp -a \"$@\" /mnt/");

/// The payload that shows what the kernel and the tree alone take.
pub(super) const PAYLOAD: &str = "payload";

fn level(level: u32) -> Vec<String> {
    vec![format!("--level={level}")]
}

/// Swap in compressed memory, by the modules of the kernel that boots.
fn zram() -> Result<Vec<String>> {
    let modules = kernels::modules(super::SERIES)?;
    Ok(vec![format!("--modules={}", modules.display()), "--config=zram=auto".into()])
}

/// An image for each contender, or for the named ones.
pub(super) fn all(tree: &Tree, only: &[String], peers: &[Peer]) -> Result<Vec<Image>> {
    let guest = programs::guest()?;
    let repot = build::init(build::Arch::X86_64)?;
    let kind = |name: &str, about: &str, init, quarters| Kind {
        name: name.into(),
        about: about.into(),
        init,
        quarters,
    };
    let mut kinds = vec![
        kind("none", "no re-homing", Init::Program(guest.clone()), 6),
        kind("repot", "repot", Init::Program(repot), 6),
        kind(PAYLOAD, "payload", Init::Payload(level(payload_images::LEVEL)), 4),
        kind("zram", "payload with zram", Init::Payload([level(payload_images::LEVEL), zram()?].concat()), 2),
        kind("zram-19", "payload with zram, --level 19", Init::Payload([level(19), zram()?].concat()), 2),
        kind("classic", "classic algorithm", Init::Program(guest), 8),
        kind("tar", "BusyBox tar | tar, then switch_root", Init::Script(TAR), 10),
        kind("cp", "BusyBox cp -a, then switch_root", Init::Script(CP), 10),
    ];
    for peer in peers {
        kinds.push(kind(&peer.name, &peer.name, Init::Program(peer.path.clone()), 8));
    }
    kinds.retain(|kind| only.is_empty() || only.contains(&kind.name));
    let root = place::fresh(&format!("bench/ram/{}", tree.name))?;
    tree.fill(&root)?;
    put(&programs::guest()?, &root.join("sbin/init"))?;
    fs::create_dir_all(root.join("bin"))?;
    put(&command::find("busybox")?, &root.join("bin/busybox"))?;
    // The kernel's built-in archive has the first two, and `repot pack` adds what is missing of the others,
    // so they are part of the tally.
    fs::create_dir_all(root.join("root"))?;
    fs::set_permissions(root.join("root"), Permissions::from_mode(0o700))?;
    for (name, major, minor) in [("console", 5, 1), ("null", 1, 3), ("kmsg", 1, 11)] {
        let path = root.join("dev").join(name);
        if !path.exists() {
            mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(major, minor))
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
    }
    let base = compressed(&root)?;
    let images = kinds.iter().map(|kind| image(tree, &root, &base, kind)).collect::<Result<_>>()?;
    for path in [&root, &place::kept("bench/ram/first")?] {
        fs::remove_dir_all(path).context("cannot remove the stage")?;
    }
    Ok(images)
}

/// The part that all images have in common, packed once.
fn compressed(root: &Path) -> Result<Vec<u8>> {
    let plain = place::kept("bench/ram")?.join("base.cpio");
    programs::pack_plain(root, &plain)?;
    let mut encoder = Encoder::new(Vec::new(), Compression::Zstd, 3).context("zstd")?;
    copy(&mut File::open(&plain)?, &mut encoder).context("cannot compress the image")?;
    fs::remove_file(&plain)?;
    encoder.finish().context("cannot compress the image")
}

/// The `/init` is an archive in front of the common part. The kernel unpacks one after the other.
fn image(tree: &Tree, root: &Path, base: &[u8], kind: &Kind) -> Result<Image> {
    let first = place::fresh("bench/ram/first")?;
    fs::create_dir_all(first.join("etc"))?;
    fs::set_permissions(&first, root.metadata()?.permissions())?;
    let word = if kind.name == "classic" { "classic" } else { "machine" };
    let archive = place::kept("bench/ram")?.join(format!("{}-{}.cpio", tree.name, kind.name));
    for folder in [root, &first] {
        match &kind.init {
            Init::Program(path) => put(path, &folder.join("init"))?,
            Init::Script(text) => {
                fs::write(folder.join("init"), text).context("cannot write /init")?;
                fs::set_permissions(folder.join("init"), Permissions::from_mode(0o755))?;
            }
            Init::Payload(_) => put(&build::init_payload(build::Arch::X86_64)?, &folder.join("init"))?,
        }
        fs::write(folder.join("etc/bench-machine"), word).context("cannot write /etc/bench-machine")?;
    }
    let said = command::read(Command::new(programs::guest()?).arg("tally").arg(root))?;
    let tally = GuestOutput::new(said.as_bytes()).word("tally").context("no tally")?.to_owned();
    let bytes = tally.split(' ').nth(1).and_then(|bytes| bytes.parse::<u64>().ok()).context("no tally")?;
    if let Init::Payload(words) = &kind.init {
        payload_images::pack(root, &archive, words)?;
    } else {
        programs::pack_plain(&first, &archive)?;
        let mut out = File::options().append(true).open(&archive).context("cannot open the image")?;
        out.write_all(base).context("cannot write the image")?;
    }
    Ok(Image {
        tree: tree.name.clone(),
        name: kind.name.clone(),
        about: kind.about.clone(),
        archive,
        tally,
        guess: 96 + u32::try_from(bytes >> 20)? * kind.quarters / 4,
    })
}

fn put(from: &Path, to: &Path) -> Result<()> {
    // The old file may be a symlink out of the tree.
    match fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("cannot replace");
        }
        _ => {}
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(fs::set_permissions(to, Permissions::from_mode(0o755))?)
}
