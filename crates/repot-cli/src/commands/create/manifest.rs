//! A manifest: the entries of an archive, line by line, in sections that are compressed on their own.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use super::{list, table};
use crate::cli::ManifestFormat;
use crate::codec::Compression;
use crate::report::name::shown;

/// The whole manifest.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) sections: Vec<Section>,
    pub(super) warnings: Vec<String>,
    /// The device number in each header, as the program that the format belongs to writes it.
    pub(super) device: (u32, u32),
}

/// What becomes one segment.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) compression: Compression,
    pub(super) level: u32,
    pub(super) entries: Vec<Entry>,
}

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The number of its line.
    pub(super) line: usize,
    pub(super) name: Vec<u8>,
    /// Type and permissions.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// `None` if nothing says it.
    pub(super) mtime: Option<u32>,
    pub(super) ino: u32,
    pub(super) nlink: u32,
    pub(super) rdev: (u32, u32),
    pub(super) data: Data,
    /// Entries with the same one, and the same attributes, are one inode.
    pub(super) inode: Option<(u64, u64)>,
}

/// The contents of a member.
#[derive(Debug, Clone)]
pub(super) enum Data {
    None,
    /// The target of a symbolic link.
    Bytes(Vec<u8>),
    /// So many bytes of a file. `true` if that is its whole length.
    File(PathBuf, u32, bool),
}

/// What the lines of both formats need to know.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    /// The directory of the files.
    pub(super) directory: Option<&'a Path>,
    pub(super) line: usize,
    pub(super) warnings: Vec<String>,
}

impl Lines<'_> {
    /// The path of a file on this machine.
    pub(super) fn path(&self, location: &[u8]) -> PathBuf {
        let path = Path::new(OsStr::from_bytes(location));
        self.directory.map_or_else(|| path.to_path_buf(), |directory| directory.join(path))
    }

    pub(super) fn warn(&mut self, text: &str) {
        self.warnings.push(format!("line {}: {text}", self.line));
    }
}

impl Manifest {
    /// Reads a manifest, and looks at the files that it names. Errors have the number of the line.
    pub(super) fn parse(
        text: &[u8],
        name: &str,
        format: Option<ManifestFormat>,
        directory: Option<&Path>,
        default: (Compression, u32),
    ) -> Result<Manifest> {
        let format = format.unwrap_or_else(|| detect(text));
        let numbered: Vec<Numbered<'_>> =
            (1..).zip(text.split(|byte| *byte == b'\n')).filter(|(_, line)| is_meant(line)).collect();
        let (mut sections, mut warnings) = (Vec::new(), Vec::new());
        let mut current = Section { compression: default.0, level: default.1, entries: Vec::new() };
        for part in parts(&numbered, |lines| Part::parse(lines, name, format, directory)) {
            let part = part?;
            warnings.extend(part.warnings);
            for parsed in part.parsed {
                match parsed {
                    Parsed::Entries(entries) => current.entries.extend(entries),
                    // The first marker is in front of everything.
                    Parsed::Section(compression, level) => {
                        let next = Section { compression, level, entries: Vec::new() };
                        sections.push(std::mem::replace(&mut current, next));
                    }
                }
            }
        }
        sections.push(current);
        sections.retain(|section| !section.entries.is_empty());
        ensure!(!sections.is_empty(), "{name}: the manifest has no entries");
        let (first, device) = match format {
            ManifestFormat::List => (721, (3, 1)),
            ManifestFormat::Table => (0, (0, 0)),
        };
        for section in &mut sections {
            number(&mut section.entries, first);
        }
        Ok(Manifest { sections, warnings, device })
    }
}

/// Whether a line is no comment.
fn is_meant(line: &[u8]) -> bool {
    !line.starts_with(b"#") || marker(line).is_some()
}

/// Looks at lines in several threads: most of the time goes into looking at files.
fn parts(
    lines: &[Numbered<'_>],
    parse: impl Fn(&[Numbered<'_>]) -> Result<Part> + Sync,
) -> Vec<Result<Part>> {
    let parse = &parse;
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let size = lines.len().div_ceil(threads).max(PART);
        let running: Vec<_> = lines.chunks(size).map(|part| scope.spawn(move || parse(part))).collect();
        let parts = running.into_iter().map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic)));
        parts.collect()
    })
}

/// A line with its number.
type Numbered<'a> = (usize, &'a [u8]);

/// Lines that a thread of its own is worth.
const PART: usize = 500;

/// Lines that one thread has looked at.
struct Part {
    parsed: Vec<Parsed>,
    warnings: Vec<String>,
}

/// What a line is.
enum Parsed {
    Entries(Vec<Entry>),
    Section(Compression, u32),
}

impl Part {
    fn parse(
        lines: &[Numbered<'_>],
        name: &str,
        format: ManifestFormat,
        directory: Option<&Path>,
    ) -> Result<Part> {
        let mut looking = Lines { directory, line: 0, warnings: Vec::new() };
        let mut parsed = Vec::with_capacity(lines.len());
        for (number, line) in lines {
            looking.line = *number;
            let at = || format!("{name}:{number}");
            parsed.push(match marker(line) {
                Some(rest) => {
                    let (compression, level) = compression(rest).with_context(at)?;
                    Parsed::Section(compression, level)
                }
                None => Parsed::Entries(
                    match format {
                        ManifestFormat::List => list::entries(line, &mut looking),
                        ManifestFormat::Table => table::entry(line, &mut looking),
                    }
                    .with_context(at)?,
                ),
            });
        }
        Ok(Part { parsed, warnings: looking.warnings })
    }
}

/// The format of a manifest, by its first entry.
fn detect(text: &[u8]) -> ManifestFormat {
    let lines = text.split(|byte| *byte == b'\n');
    let first = lines.map(|line| line.trim_ascii()).find(|line| !line.is_empty() && !line.starts_with(b"#"));
    let words: Vec<&[u8]> = words(first.unwrap_or_default()).collect();
    if words.len() > 4 && list::TYPES.contains(&words[0]) {
        ManifestFormat::List
    } else {
        ManifestFormat::Table
    }
}

/// The words of a line.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// What follows `#cpio`, in the line that begins a section.
fn marker(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"#cpio")?;
    (rest.is_empty() || rest.starts_with(b":") || rest[0].is_ascii_whitespace()).then_some(rest)
}

/// The compression of a section: `: zstd -9`.
fn compression(text: &[u8]) -> Result<(Compression, u32)> {
    let text = str::from_utf8(text.strip_prefix(b":").unwrap_or(text)).context("not UTF-8")?;
    let mut words = text.split_ascii_whitespace();
    let compression = match words.next() {
        None | Some("cpio" | "none") => Compression::None,
        Some("zstd") => Compression::Zstd,
        Some("gzip") => Compression::Gzip,
        Some("xz") => Compression::Xz,
        Some("lz4") => Compression::Lz4,
        Some("lzma") => Compression::Lzma,
        Some("bzip2") => Compression::Bzip2,
        Some("lzop" | "lzo") => Compression::Lzo,
        Some(other) => {
            bail!("unknown compression {other}: use zstd, xz, gzip, lz4, lzma, bzip2, lzop or none")
        }
    };
    let mut level = compression.default_level();
    if let Some(word) = words.next() {
        let number = word.strip_prefix('-').and_then(|number| number.parse().ok());
        level = number.with_context(|| format!("{word} is not a level such as -9"))?;
        let levels = compression.levels();
        let fits = levels.contains(&level) || matches!(compression, Compression::Lz4 | Compression::Lzo);
        ensure!(fits, "{compression} has levels {} to {}, not {level}", levels.start(), levels.end());
    }
    ensure!(words.next().is_none(), "more than a compression and a level");
    Ok((compression, level))
}

/// Numbers the inodes. The contents go with the last name of each, as `gen_init_cpio` and 3cpio write them.
fn number(entries: &mut [Entry], first: u32) {
    // Names of one file with other attributes, or of its first bytes only, cannot be one inode.
    let same = |entry: &Entry| {
        let length = if let Data::File(_, length, _) = entry.data { length } else { 0 };
        entry.inode.map(|inode| (inode, length, entry.mode, entry.uid, entry.gid, entry.mtime))
    };
    let keys: Vec<_> = entries.iter().map(same).collect();
    let mut names: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, key) in keys.iter().enumerate() {
        if let Some(key) = key {
            names.entry(key).or_default().push(at);
        }
    }
    let mut next = first;
    for at in 0..entries.len() {
        let group = keys[at].as_ref().and_then(|key| names.get(key));
        match group.filter(|group| group.len() > 1) {
            Some(group) => {
                if group[0] == at {
                    entries[at].ino = next;
                    next += 1;
                }
                entries[at].ino = entries[group[0]].ino;
                entries[at].nlink = u32::try_from(group.len()).unwrap_or(u32::MAX);
                if group.last() != Some(&at) {
                    entries[at].data = Data::None;
                }
            }
            None => {
                entries[at].ino = next;
                next += 1;
            }
        }
    }
}

/// The contents of a file with this length, or with the first bytes of it.
pub(super) fn contents(path: PathBuf, metadata: &Metadata, wanted: Option<u32>) -> Result<Data> {
    ensure!(!metadata.is_dir(), "{} is a directory", path.display());
    let has = metadata.len();
    if let Some(wanted) = wanted {
        ensure!(has >= wanted.into(), "{} has {has} bytes, fewer than {wanted}", path.display());
    }
    let length = wanted.map_or_else(|| u32::try_from(has), Ok);
    let length = length
        .ok()
        .with_context(|| format!("{}: newc cannot hold a file of 4 GiB or more", path.display()))?;
    // /dev/null stands for an empty file.
    Ok(if length == 0 { Data::None } else { Data::File(path, length, wanted.is_none()) })
}

/// The modification time as far as newc can hold it.
pub(super) fn mtime(metadata: &Metadata) -> u32 {
    u32::try_from(metadata.mtime().max(0)).unwrap_or(u32::MAX)
}

/// A number in a field.
pub(super) fn field(text: &[u8], what: &str, radix: u32) -> Result<u32> {
    let parsed = str::from_utf8(text).ok().and_then(|text| u32::from_str_radix(text, radix).ok());
    let kind = if radix == 8 { "an octal number" } else { "a number" };
    parsed.with_context(|| format!("{what} {} is not {kind}", shown(text)))
}

/// A field with permissions.
pub(super) fn permissions(text: &[u8]) -> Result<u32> {
    let mode = field(text, "mode", 8)?;
    ensure!(mode <= 0o7777, "mode {} has more than permissions", shown(text));
    Ok(mode)
}
