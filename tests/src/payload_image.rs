//! Images with a payload: packed from a stage, unpacked as by the kernel, run, and corrupted.
pub mod faults;
pub mod runs;

use repot::manifest::is_name;
use repot::payload::index::Index;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use clap::Parser;
use repot_cli::cli::Cli;
use repot_cli::newc::{Header, Item, Reader};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, chownat, linkat, makedev, mkdirat, mknodat,
    symlinkat, utimensat,
};

use crate::programs;
use crate::sandbox::Setup;
use crate::stage::{Prepared, Stage, prepare, prepare_with};
use crate::trees::{Fs, Meta, Plant, What};
use repot_snapshot::{Atime, Holes, Rules, Snapshot};

/// A packed image, and the source tree.
#[derive(Debug)]
pub struct Packed {
    /// The uncompressed archive.
    pub image: Vec<u8>,
    /// The tree before.
    pub before: Snapshot,
    _source: OwnedFd,
}

impl Packed {
    /// The index of the payload.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn index(&self) -> Index {
        let mut reader = Reader::new(&self.image[..], 0);
        while let Some(item) = reader.next_item().expect("an archive") {
            let Item::Member(header) = item else { continue };
            if header.name == b".repot-payload/index" {
                let mut text = Vec::new();
                reader.read_to_end(&mut text).expect("the index");
                return Index::parse(&text).expect("an index");
            }
        }
        panic!("no index")
    }
}

/// A directory for the images of a test, removed at the end.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Fills a tmpfs by `build`, and packs it as a payload with these settings and options.
///
/// # Panics
/// If that fails.
pub fn pack(settings: &[&str], build: impl FnOnce(&Stage) + Send) -> Packed {
    let folder = scratch();
    let output = folder.path().join("image.cpio");
    let source = prepare(Fs::Tmpfs, |stage| {
        build(stage);
        // These files exist already, so that the tool does not add them and the trees are equal.
        stage.program("sbin/init", programs::helper());
        stage.program("init", programs::repot_init_payload());
        stage.plant(&nodes());
        stage.file("etc/repot.conf", b"");
        pack_directory(&stage.path(""), &output, settings);
    });
    Packed { image: fs::read(&output).expect("the image"), before: source.before, _source: source.view }
}

/// The device nodes that every image has.
fn nodes() -> Vec<Plant> {
    let node = |path: &str, minor, major| Plant {
        path: path.into(),
        what: What::Char(major, minor),
        // It is outside of the payload too, where times are whole seconds.
        meta: Meta { mode: 0o600, mtime: (1_500_000_000, 0), ..Meta::default() },
    };
    let dev = Plant { path: b"dev".to_vec(), what: What::Dir, meta: Meta { mode: 0o755, ..Meta::default() } };
    vec![dev, node("dev/console", 1, 5), node("dev/null", 3, 1), node("dev/kmsg", 11, 1)]
}

/// A tree without the paths that are too long for a cpio archive, which `pack` refuses, and without huge
/// sparse files, which would become zeros.
#[must_use]
pub fn packable(tree: Vec<Plant>) -> Vec<Plant> {
    let small = |what: &What| !matches!(what, What::File { len, .. } if *len > 64 << 20);
    tree.into_iter().filter(|plant| plant.path.len() < 4096 && small(&plant.what)).collect()
}

/// `repot pack --payload` of a directory.
///
/// # Panics
/// If that fails.
pub fn pack_directory(root: &Path, output: &Path, settings: &[&str]) {
    let path = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let mut words =
        vec!["repot".to_owned(), "pack".into(), path(root), "--payload".into(), "-o".into(), path(output)];
    words.extend(["--init".into(), path(programs::repot_init_payload()), "--level".into(), "3".into()]);
    for setting in settings {
        let option = setting.starts_with("--");
        words.push(if option { (*setting).to_owned() } else { format!("--config={setting}") });
    }
    let cli = Cli::try_parse_from(words).expect("options");
    repot_cli::run(&cli).expect("packed");
}

/// What the tree becomes: tar stores no inode flags, no access times and no times before 1970, and holes are
/// filled.
#[must_use]
pub fn carried(before: &Snapshot) -> Snapshot {
    let mut carried = before.clone();
    for entry in carried.values_mut() {
        entry.flags = 0;
        if entry.mtime.0 < 0 {
            entry.mtime = (0, 0);
        }
        if entry.mtime.0 >= i64::from(u32::MAX) {
            entry.mtime = (u32::MAX.into(), 0);
        }
    }
    carried.retain(|path, _| !is_added(path));
    carried
}

/// What is compared.
pub const RULES: Rules = Rules { atime: Atime::Ignored, holes: Holes::Ignored, read: &[], gone: &[] };

/// What the image adds, or stores with other times.
const ADDED: [&[u8]; 4] = [b".repot-begin", b".repot-end", b"init", b"etc/repot.conf"];

fn is_added(path: &[u8]) -> bool {
    ADDED.contains(&path) || is_name(path)
}

/// The tree after the boot, without what the image adds.
#[must_use]
pub fn arrived(after: &Snapshot) -> Snapshot {
    let mut arrived = after.clone();
    arrived.retain(|path, _| !is_added(path));
    arrived
}

/// Unpacks images onto an `fs` as the kernel does, applies `change`, and prepares it to run.
///
/// # Panics
/// If that fails.
pub fn unpacked(
    fs: Fs,
    options: &[(&str, &str)],
    images: &[&[u8]],
    change: impl FnOnce(&Stage) + Send,
) -> Prepared {
    let build = |stage: &Stage| {
        for image in images {
            unpack(stage, image);
        }
        change(stage);
    };
    if options.is_empty() { prepare(fs, build) } else { prepare_with(fs, options, build) }
}

/// The kernel's unpacking (init/initramfs.c), for the types of entries in an outer archive.
fn unpack(stage: &Stage, image: &[u8]) {
    let mut reader = Reader::new(BufReader::new(image), 0);
    let mut directories = Vec::new();
    while let Some(item) = reader.next_item().expect("an archive") {
        let Item::Member(header) = item else { continue };
        let path = stage.path(std::str::from_utf8(&header.name).expect("plain names"));
        let mut data = Vec::new();
        reader.read_to_end(&mut data).expect("data");
        let mode = Mode::from_raw_mode(header.mode & 0o7777);
        let gone = |path: &PathBuf| {
            let _ = fs::remove_file(path);
        };
        match FileType::from_raw_mode(header.mode) {
            FileType::Directory => {
                let _ = mkdirat(CWD, &path, mode);
                directories.push((path, header));
                continue;
            }
            FileType::RegularFile => {
                gone(&path);
                fs::write(&path, &data).expect("a file");
            }
            FileType::Symlink => {
                gone(&path);
                symlinkat(&data[..], CWD, &path).expect("a symbolic link");
            }
            kind @ (FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Fifo
            | FileType::Socket
            | FileType::Unknown) => {
                gone(&path);
                let device = makedev(header.rdevmajor, header.rdevminor);
                mknodat(CWD, &path, kind, mode, device).expect("a node");
            }
        }
        dress(&path, &header);
    }
    for (path, header) in directories.iter().rev() {
        dress(path, header);
    }
}

fn dress(path: &Path, header: &Header) {
    let owner = (Some(Uid::from_raw(header.uid)), Some(Gid::from_raw(header.gid)));
    chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).expect("owner");
    if !header.is_symlink() {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(header.mode & 0o7777), AtFlags::empty())
            .expect("mode");
    }
    let time = Timespec { tv_sec: header.mtime.into(), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
}

/// Bytes that are all different and do not compress.
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A tree of several chunks and frames: files that do not compress, one larger than a frame, hard links far
/// apart.
pub fn of_several_chunks(stage: &Stage) {
    for number in 0..12 {
        stage.file(&format!("data/{number:02}"), &noise(number + 1, 400_000));
    }
    stage.file("data/large", &noise(99, 5 << 20));
    stage.file("data/text", "the same again and again\n".repeat(100_000).as_bytes());
    let linked = stage.path("data/zz-linked");
    linkat(CWD, stage.path("data/00"), CWD, linked, AtFlags::empty()).expect("linked");
}

/// The names of the chunks on a stage, in order.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn chunks(stage: &Stage) -> Vec<PathBuf> {
    let list = fs::read_dir(stage.path(".repot-payload")).expect("a payload");
    let mut chunks: Vec<_> =
        list.map(|item| item.expect("an entry").path()).filter(|path| !path.ends_with("index")).collect();
    chunks.sort();
    chunks
}

/// Changes a file in place.
///
/// # Panics
/// If that fails.
pub fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("read");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

/// The setup of a run without interception.
#[must_use]
pub fn setup() -> Setup {
    Setup::default()
}

/// The payload of an image as an archive: all chunks, decompressed by `zstd -d`.
///
/// # Panics
/// If it is not one.
#[must_use]
pub fn archive(image: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    let mut reader = Reader::new(BufReader::new(image), 0);
    while let Some(item) = reader.next_item().expect("an archive") {
        let Item::Member(header) = item else { continue };
        let name = header.name.strip_prefix(b".repot-payload/").unwrap_or_default();
        if !name.is_empty() && name != b"index" {
            reader.read_to_end(&mut compressed).expect("a chunk");
        }
    }
    zstd::decode_all(&compressed[..]).expect("a stream of zstd")
}

/// Writes bytes to a file in a temporary directory.
#[must_use]
pub fn kept(bytes: &[u8]) -> (tempfile::TempDir, File, PathBuf) {
    let folder = scratch();
    let path = folder.path().join("archive");
    fs::write(&path, bytes).expect("written");
    let file = File::open(&path).expect("opened");
    (folder, file, path)
}
