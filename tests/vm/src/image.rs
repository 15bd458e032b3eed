//! The image of a scenario: a directory, the snapshot of it, and the archive.

use crate::scenario::{Compress, Console, Cut, Scenario, Tree};
use crate::{payload_image, secret, segments};
use anyhow::{Context, Result, ensure};
use repot_cli::codec::{Compression, Encoder};
use repot_cli::modules::{self, Choice};
use repot_cli::newc::{Item, Reader};
use repot_harness::arch::Arch;
use repot_harness::{command, debian, place};
use repot_snapshot::plant::{Fs, Plant, hostile_archive, plant};
use repot_snapshot::{Kind, Snapshot, snapshot};
use repot_tests::payload_image::noise;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};
use std::ffi::OsStr;
use std::fs::{File, Permissions, create_dir_all};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A packed tree.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) archive: PathBuf,
    /// What the kernel must unpack.
    pub(crate) tree: Snapshot,
    /// The digest of the payload, as `payload=` takes it.
    pub(crate) digest: Option<String>,
}

impl Image {
    pub(crate) fn build(scenario: &Scenario, arch: Arch, init: &Path, probe: &Path) -> Result<Image> {
        let name = if arch == Arch::X86_64 {
            scenario.name.clone()
        } else {
            format!("{}-{}", scenario.name, arch.name())
        };
        let root = place::fresh(&format!("boots/trees/{name}"))?;
        skeleton(&root, scenario, init, probe)?;
        match scenario.tree {
            Tree::Small => {}
            Tree::Hostile => hostile(scenario, &root)?,
            Tree::Large => large(&root.join("large"), 200)?,
            Tree::Repeated => repeated(&root.join("repeated"), 240)?,
            Tree::Heavy => large(&root.join("zz"), 48)?,
            Tree::Crowd => crowd(&root.join("zz"))?,
            Tree::Tail => tail(&root.join("zz"))?,
            Tree::Secret => secret::plant(&root.join("secret"))?,
        }
        if scenario.understated {
            // It fills the first chunks, which have been freed by the time the memory runs out.
            std::fs::write(root.join("full"), noise(1, 5 << 20)).context("full")?;
        }
        // Outside of the payload there are whole seconds.
        let fine = |path: &[u8]| scenario.payload && path != b"dev/console";
        let tree = dated(&root, |path| if fine(path) { 123_456_789 } else { 0 })?;
        let archive = place::kept("boots/images")?.join(format!("{name}.cpio"));
        if scenario.payload {
            payload_image::pack(&root, init, &scenario.driver()?, &archive)?;
            if scenario.understated {
                payload_image::understate(&archive).context("the index of the payload")?;
            }
        } else {
            write(scenario, &root, init, &archive)
                .with_context(|| format!("cannot pack {}", root.display()))?;
        }
        let digest = scenario.payload.then(|| payload_image::digest(&archive)).transpose()?;
        segments::add(scenario, &archive, probe).context("cannot add a segment")?;
        if let Some(cut) = scenario.cut {
            cut_off(scenario, cut, &archive).context("cannot truncate it")?;
        }
        Ok(Image { archive, tree, digest })
    }
}

/// Plants the hostile tree. Only a payload can carry its extended attributes.
fn hostile(scenario: &Scenario, root: &Path) -> Result<()> {
    // tmpfs has attributes of the user only since Linux 6.6.
    let kept = |name: &[u8]| scenario.payload && !name.starts_with(b"user.");
    let tree: Vec<Plant> = hostile_archive().into_iter().map(|plant| with_xattrs(plant, kept)).collect();
    plant(open(root)?, Fs::Tmpfs, &tree);
    Ok(())
}

/// Keeps those extended attributes of a plant whose name is `kept` and that every file system can store.
pub(crate) fn with_xattrs(mut plant: Plant, kept: impl Fn(&[u8]) -> bool) -> Plant {
    let plain = |name: &[u8]| name.iter().all(u8::is_ascii_graphic);
    plant.meta.xattrs.retain(|(name, value)| {
        let name = name.to_bytes();
        kept(name) && plain(name) && value.len() <= 1000
    });
    plant
}

/// Gives each entry its own times, with these nanoseconds, and returns what the kernel must unpack.
pub(crate) fn dated(root: &Path, nanoseconds: impl Fn(&[u8]) -> i64) -> Result<Snapshot> {
    let tree = snapshot(open(root)?).context("snapshot")?;
    // From the last path to the first, so that the lowest path of several hard links decides.
    for (number, path) in (0..).zip(tree.keys().rev()) {
        let time = Timespec { tv_sec: 1_100_000_000 - number * 1009, tv_nsec: nanoseconds(path) };
        let times = Timestamps { last_access: time, last_modification: time };
        let path = root.join(OsStr::from_bytes(path));
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("cannot set the times of {}", path.display()))?;
    }
    let mut tree = snapshot(open(root)?).context("snapshot")?;
    for entry in tree.values_mut() {
        // The kernel sets the access time to the modification time. Flags and blocks belong to this machine's
        // file system.
        (entry.flags, entry.atime) = (0, entry.mtime);
        if entry.kind == Kind::File {
            entry.blocks = entry.size.div_ceil(4096) * 8;
        }
    }
    Ok(tree)
}

fn open(root: &Path) -> Result<File> {
    File::open(root).with_context(|| format!("cannot open {}", root.display()))
}

/// Writes the archive. One that is marked or will be truncated is written as by `repot pack`, with an end
/// marker.
fn write(scenario: &Scenario, root: &Path, init: &Path, archive: &Path) -> Result<()> {
    let compression = match scenario.compress {
        Compress::None => Compression::None,
        Compress::Gzip => Compression::Gzip,
        Compress::Zstd => Compression::Zstd,
    };
    let file = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let mut encoder = Encoder::new(file, compression, compression.default_level().min(3))?;
    let modules: Vec<Choice> = scenario.driver()?.into_iter().map(Choice::Folder).collect();
    if scenario.cut.is_some() || scenario.marked || !modules.is_empty() {
        let tree = repot_cli::source::directory::scan(root)?.tree;
        let init = repot_cli::init_binary::find(Some(init), None)?;
        let mut image = repot_cli::image::Image::new(tree, &init, &[], None)?;
        image.add_modules(&modules::collect(&modules, image.tree(), None)?);
        image.write(&mut encoder, &mut |_| ())?;
    } else {
        repot_cli::source::directory::pack(root, &mut encoder)?;
    }
    encoder.finish()?;
    Ok(())
}

/// Keeps four fifths of an archive.
fn cut_off(scenario: &Scenario, cut: Cut, archive: &Path) -> Result<()> {
    let bytes = std::fs::read(archive)?;
    let mut end = bytes.len() / 5 * 4;
    if scenario.compress == Compress::None {
        let mut reader = Reader::new(&bytes[..], 0);
        while reader.offset() <= u64::try_from(end)? {
            ensure!(matches!(reader.next_item()?, Some(Item::Member(_))), "the archive ends before {end}");
            std::io::copy(&mut reader, &mut std::io::sink())?;
        }
        end = usize::try_from(reader.offset())?.next_multiple_of(4);
        if cut == Cut::Inside {
            end -= TAIL_FILE / 2;
        }
    }
    File::options().write(true).open(archive)?.set_len(u64::try_from(end)?)?;
    Ok(())
}

/// What every image has: the two inits, and what the kernel's built-in archive has.
fn skeleton(root: &Path, scenario: &Scenario, init: &Path, probe: &Path) -> Result<()> {
    for folder in ["dev", "etc", "mnt", "proc", "root", "run", "sbin", "sys", "tmp"] {
        create_dir_all(root.join(folder)).with_context(|| format!("cannot create {folder}"))?;
    }
    std::fs::set_permissions(root.join("root"), Permissions::from_mode(0o700))?;
    std::fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))?;
    let copy = |from: &Path, to: &str| -> Result<()> {
        let to = root.join(to);
        std::fs::copy(from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(std::fs::set_permissions(&to, Permissions::from_mode(0o755))?)
    };
    if !scenario.no_init {
        copy(probe, "sbin/init")?;
    }
    for path in &scenario.also_init {
        create_dir_all(root.join(path).parent().unwrap_or(root))?;
        copy(probe, path)?;
    }
    if scenario.steps.is_empty() {
        let place = root.join(&scenario.init);
        create_dir_all(place.parent().unwrap_or(root))?;
        copy(if scenario.bare { probe } else { init }, &scenario.init)?;
    } else {
        copy(probe, "init")?;
        copy(init, "repot")?;
        std::fs::write(root.join(repot_probe::steps::FILE), serde_json::to_vec(&scenario.steps)?)?;
    }
    if scenario.forgets {
        std::fs::write(root.join(repot_probe::FORGET), b"")?;
    }
    if scenario.policy {
        debian::need(&[("secilc", "secilc")])?;
        let source = place::checkout().join("tests/vm/policy.cil");
        // The version that the oldest kernel knows.
        let words = ["-c", "31", "-f", "/dev/null", "-o"];
        command::run(Command::new("secilc").args(words).arg(root.join("policy")).arg(source))?;
    }
    if let Some(config) = &scenario.config {
        std::fs::write(root.join("etc/repot.conf"), config)?;
    }
    let console = root.join("dev/console");
    match scenario.console {
        // The kernel's built-in archive has /dev/console. Only another type of file replaces it.
        Console::Missing => symlink("nowhere", console)?,
        Console::File => drop(File::create(console)?),
        Console::Fifo => mknodat(CWD, console, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
        Console::Device => {
            device(root, "dev/console", 5, 1)?;
            device(root, "dev/null", 1, 3)?;
            if scenario.payload {
                // Otherwise `repot pack` adds it.
                device(root, "dev/kmsg", 1, 11)?;
            }
        }
    }
    Ok(())
}

fn device(root: &Path, name: &str, major: u32, minor: u32) -> Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, root.join(name), FileType::CharacterDevice, mode, makedev(major, minor))
        .with_context(|| format!("cannot create the device {name}"))
}

/// Every page contains its number, so that a page in the wrong place is found.
fn large(path: &Path, mib: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut window = vec![0u8; 1 << 20];
    for number in 0..mib {
        for (page, bytes) in (0u64..).zip(window.chunks_mut(4096)) {
            let name = (number * 256 + page + 1).to_le_bytes();
            for part in bytes.chunks_mut(8) {
                part.copy_from_slice(&name);
            }
        }
        file.write_all_at(&window, number << 20)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The same half MiB of noise again and again.
fn repeated(path: &Path, times: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let part = noise(1, 512 << 10);
    for at in (0..times).map(|number| number * (512 << 10)) {
        file.write_all_at(&part, at).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn crowd(at: &Path) -> Result<()> {
    create_dir_all(at)?;
    for number in 0..20_000 {
        File::create(at.join(format!("{number:05}")))?;
    }
    Ok(())
}

/// Bytes of each file of [`Tree::Tail`].
const TAIL_FILE: usize = 16 << 10;

fn tail(at: &Path) -> Result<()> {
    create_dir_all(at)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..64 {
        let mut bytes = vec![0; TAIL_FILE];
        for part in bytes.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            part.copy_from_slice(&state.to_le_bytes());
        }
        std::fs::write(at.join(format!("{number:02}")), bytes)?;
    }
    Ok(())
}
