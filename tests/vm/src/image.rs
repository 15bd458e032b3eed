//! The image of a scenario: a staging directory, the list of its entries, and the archive.

use crate::scenario::{Compress, Cut, Scenario, Tree};
use crate::{hostile, payload_image};
use anyhow::{Context, Result, ensure};
use repot_cli::codec::{Compression, Encoder};
use repot_cli::newc::{Item, Reader};
use repot_harness::place;
use repot_probe::account::Entry;
use repot_probe::snapshot::{Depth, snapshot};
use repot_tests::payload::noise;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};
use std::fs::{File, Permissions, create_dir_all};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A packed tree and what is in it.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) archive: PathBuf,
    pub(crate) entries: Vec<Entry>,
}

impl Image {
    pub(crate) fn build(scenario: &Scenario, init: &Path, probe: &Path) -> Result<Image> {
        static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _lock = ONE_AT_A_TIME.lock();
        let root = place::fresh(&format!("boots/trees/{}", scenario.name))?;
        skeleton(&root, scenario, init, probe)?;
        match scenario.tree {
            Tree::Small => {}
            Tree::Hostile => hostile::add(&root)?,
            Tree::Large => large(&root.join("large"), 200)?,
            Tree::Heavy => large(&root.join("zz"), 48)?,
            Tree::Crowd => crowd(&root.join("zz"))?,
            Tree::Tail => tail(&root.join("zz"))?,
        }
        if scenario.payload && scenario.tree == Tree::Hostile {
            payload_image::dress(&root)?;
        }
        if scenario.understated {
            // It fills chunks, and comes first: they are gone when the room ends.
            std::fs::write(root.join("full"), noise(1, 5 << 20)).context("full")?;
        }
        // Reading attributes changes the working directory.
        let here = std::env::current_dir().context("the working directory")?;
        let depth = Depth { attributes: scenario.payload, restore: false };
        let open = || File::open(&root).with_context(|| format!("cannot open {}", root.display()));
        // Directories after what is in them: making an entry changes its directory's time.
        for (number, entry) in snapshot(open()?.as_fd(), depth)?.iter().enumerate().rev() {
            // Outside of the payload there are whole seconds.
            let fine = scenario.payload && entry.path != "dev/console";
            date(&root, entry, i64::try_from(number)?, if fine { 123_456_789 } else { 0 })?;
        }
        let entries = snapshot(open()?.as_fd(), depth).context("snapshot")?;
        let archive = place::kept("boots/images")?.join(format!("{}.cpio", scenario.name));
        std::env::set_current_dir(here).context("the working directory")?;
        if scenario.payload {
            payload_image::pack(&root, init, &archive)?;
            if scenario.understated {
                payload_image::understate(&archive).context("the index of the payload")?;
            }
        } else {
            write(scenario, &root, init, &archive)
                .with_context(|| format!("cannot pack {}", root.display()))?;
        }
        if let Some(cut) = scenario.cut {
            cut_off(scenario, cut, &archive).context("cannot cut it")?;
        }
        Ok(Image { archive, entries })
    }
}

/// Writes the archive; one that will be cut as `repot pack` does: with an end marker, and the promise of it.
fn write(scenario: &Scenario, root: &Path, init: &Path, archive: &Path) -> Result<()> {
    let compression = match scenario.compress {
        Compress::None => Compression::None,
        Compress::Gzip => Compression::Gzip,
        Compress::Zstd => Compression::Zstd,
    };
    let file = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let mut encoder = Encoder::new(file, compression, compression.default_level().min(3))?;
    if scenario.cut.is_some() {
        let tree = repot_cli::source::directory::scan(root)?.tree;
        let init = repot_cli::init_binary::find(Some(init))?;
        repot_cli::image::Image::new(tree, &init, &[], None)?.write(&mut encoder, &mut |_| ())?;
    } else {
        repot_cli::source::directory::pack(root, &mut encoder)?;
    }
    encoder.finish()?;
    Ok(())
}

/// Leaves four fifths of an archive.
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

/// What every image has: the two inits, and what the kernel's own built-in archive would put there.
fn skeleton(root: &Path, scenario: &Scenario, init: &Path, probe: &Path) -> Result<()> {
    for folder in ["dev", "etc", "mnt", "proc", "root", "run", "sbin", "sys", "tmp"] {
        create_dir_all(root.join(folder)).with_context(|| format!("cannot make {folder}"))?;
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
    if let Some(config) = &scenario.config {
        std::fs::write(root.join("etc/repot.conf"), config)?;
    }
    if scenario.no_console {
        // The kernel's built-in archive makes /dev/console; only another type of file replaces it.
        symlink("nowhere", root.join("dev/console"))?;
    } else {
        device(root, "dev/console", 5, 1)?;
        device(root, "dev/null", 1, 3)?;
    }
    Ok(())
}

fn device(root: &Path, name: &str, major: u32, minor: u32) -> Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, root.join(name), FileType::CharacterDevice, mode, makedev(major, minor))
        .with_context(|| format!("cannot make the device {name}"))
}

/// Every page says where it belongs, so that one in the wrong place shows.
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

fn crowd(at: &Path) -> Result<()> {
    create_dir_all(at)?;
    for number in 0..20_000 {
        File::create(at.join(format!("{number:05}")))?;
    }
    Ok(())
}

/// How large a file of [`Tree::Tail`] is.
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

/// A time of its own for every entry; a cpio archive keeps whole seconds only.
fn date(root: &Path, entry: &Entry, number: i64, nanoseconds: i64) -> Result<()> {
    // The list shows names of odd bytes in another form; those keep the time at which they were made.
    let path = root.join(&entry.path);
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let time = Timespec { tv_sec: 1_000_000_000 + number * 1009, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("cannot date {}", path.display()))
}
