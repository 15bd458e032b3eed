//! `repot create`: writes an archive from a manifest, without a directory to copy from.

mod files;
mod list;
mod manifest;
mod table;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use self::files::{Files, Source, ahead};
use self::manifest::{Data, Entry, Manifest, Section};
use super::pack::source_date_epoch;
use crate::cli::Create;
use crate::codec::{Compression, Encoder};
use crate::errors::usage;
use crate::newc::{Header, Writer};
use crate::output::{self, BLOCK, Counted, Output};
use crate::report::name::shown;
use crate::report::{Format, Summary, finish, row, size, table};
use crate::survey::place::{Lost, Placed};
use crate::tree::Kind;

/// Bytes from which on the kernel copies a file, if its contents are aligned and not compressed. Where they
/// are not aligned, no file system shares them, and two threads copy faster.
const LARGE: u32 = 128 << 10;

/// Bytes of a manifest at most.
const MANIFEST: u64 = 1 << 30;

/// Runs the command.
pub fn run(args: &Create) -> Result<()> {
    let (text, name) = read(&args.manifest)?;
    let default = compression(args)?;
    let directory = args.directory.as_deref();
    let manifest = Manifest::parse(&text, &name, args.format, directory, default)?;
    let mut created = Created { image: args.output.display().to_string(), ..Created::default() };
    created.warnings.clone_from(&manifest.warnings);
    let output = Output::create(&args.output)?;
    let sections = &manifest.sections;
    let sources = sections.iter().flat_map(|section| {
        let shared = is_shared(section, args.align);
        section.entries.iter().filter(move |entry| !shared(entry)).filter_map(Entry::source)
    });
    let sources: Vec<Source<'_>> = sources.collect();
    let write = |files: &mut Files| created.write(&manifest, &name, args.align, output, files);
    ahead(&sources, write).map_err(output::cause)?;
    finish(Format { json: args.json, stdout_taken: output::is_stdout(&args.output) }, &created)
}

/// The manifest, and its name for messages.
fn read(path: &Path) -> Result<(Vec<u8>, String)> {
    let mut text = Vec::new();
    let (name, read) = if path == Path::new("-") {
        ("standard input".to_string(), io::stdin().take(MANIFEST).read_to_end(&mut text))
    } else {
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        (name, file.take(MANIFEST).read_to_end(&mut text))
    };
    let bytes = read.with_context(|| format!("cannot read {name}"))?;
    ensure!((bytes as u64) < MANIFEST, "{name} is too large for a manifest");
    Ok((text, name))
}

/// The compression of what no line of the manifest is about.
fn compression(args: &Create) -> Result<(Compression, u32)> {
    let named = || Compression::of_name(&args.output);
    let compression = args.compress.or_else(named).unwrap_or(Compression::None);
    let level = args.level.unwrap_or(compression.default_level());
    let levels = compression.levels();
    if !levels.contains(&level) {
        let (lowest, highest) = (levels.start(), levels.end());
        return Err(usage(format!("--level {level}: {compression} has levels {lowest} to {highest}")));
    }
    Ok((compression, level))
}

/// What was written.
#[derive(Debug, Default, Serialize)]
struct Created {
    image: String,
    /// Size of the image in bytes.
    bytes: u64,
    segments: Vec<Segment>,
    warnings: Vec<String>,
}

/// A segment of the image.
#[derive(Debug, Serialize)]
struct Segment {
    /// Its first byte in the image.
    offset: u64,
    #[serde(serialize_with = "crate::report::as_text")]
    compression: Compression,
    entries: u64,
    inodes: u64,
    /// Bytes of files.
    data: u64,
}

impl Created {
    fn write(
        &mut self,
        manifest: &Manifest,
        name: &str,
        align: Option<u32>,
        output: Output,
        files: &mut Files,
    ) -> Result<()> {
        let epoch = source_date_epoch()?;
        let times =
            manifest.sections.iter().flat_map(|section| &section.entries).filter_map(|entry| entry.mtime);
        // The same manifest gives the same bytes at any time.
        let time = epoch.unwrap_or(times.max().unwrap_or(0));
        let mut placed = Placed::default();
        let mut counted = Counted { out: output, bytes: 0 };
        let mut lz4 = false;
        for section in &manifest.sections {
            let offset = counted.bytes;
            if lz4 {
                self.warnings.push(format!(
                    "the segment at byte {offset} follows an lz4 segment: kernels before 5.14 find it only if they \
                     have a later fix (lib/decompress_unlz4.c, zero padding)"
                ));
            }
            lz4 = section.compression == Compression::Lz4;
            let shared = is_shared(section, align);
            let align = align.filter(|_| section.compression == Compression::None);
            let mut writer =
                Writer::aligned(Encoder::new(counted, section.compression, section.level)?, align, offset);
            for entry in &section.entries {
                let header = header(entry, manifest.device, time, epoch);
                self.check(entry, &header, &mut placed);
                let files = Some(&mut *files).filter(|_| !shared(entry));
                member(&mut writer, entry, &header, files)
                    .with_context(|| format!("{name}:{}", entry.line))?;
            }
            placed.trailer();
            let totals = writer.totals();
            counted = writer.finish()?.finish_aligned(BLOCK)?;
            self.segments.push(Segment {
                offset,
                compression: section.compression,
                entries: totals.entries,
                inodes: totals.inodes,
                data: totals.bytes,
            });
        }
        self.bytes = counted.bytes;
        counted.out.commit()
    }

    /// Warns about an entry that the kernel would lose.
    fn check(&mut self, entry: &Entry, header: &Header, placed: &mut Placed) {
        let why = match placed.place(header) {
            Ok(place) => {
                if let Data::Bytes(target) = &entry.data {
                    let end = target.iter().position(|byte| *byte == 0).unwrap_or(target.len());
                    placed.tree.inode_mut(place.id()).kind = Kind::Symlink(target[..end].into());
                }
                return;
            }
            Err(Lost::Early) => {
                "comes before its directory: the kernel loses it, unless an image in front has that"
            }
            Err(Lost::Directory) => "is lost: a directory with entries has this name",
            Err(Lost::Link) => "is lost: the first name of its inode was lost or replaced",
        };
        self.warnings.push(format!("line {}: \"{}\" {why}", entry.line, shown(&entry.name)));
    }
}

fn header(entry: &Entry, device: (u32, u32), time: u32, epoch: Option<u32>) -> Header {
    let filesize = match &entry.data {
        Data::None => 0,
        // A target that is too long for a u32 is refused by the writer.
        Data::Bytes(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        Data::File(_, length, _) => *length,
    };
    Header {
        name: entry.name.clone(),
        ino: entry.ino,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        nlink: entry.nlink,
        mtime: entry.mtime.unwrap_or(time).min(epoch.unwrap_or(u32::MAX)),
        filesize,
        devmajor: device.0,
        devminor: device.1,
        rdevmajor: entry.rdev.0,
        rdevminor: entry.rdev.1,
        checksum: false,
    }
}

/// Whether the kernel copies the contents of an entry of this section.
fn is_shared(section: &Section, align: Option<u32>) -> impl Fn(&Entry) -> bool + Copy + use<> {
    let possible = align.is_some() && section.compression == Compression::None;
    move |entry| possible && matches!(entry.data, Data::File(_, length, _) if length >= LARGE)
}

impl Entry {
    /// The file that has its contents.
    fn source(&self) -> Option<Source<'_>> {
        let Data::File(path, length, whole) = &self.data else { return None };
        Some(Source { path, length: *length, whole: *whole })
    }
}

/// Writes a member. Its contents come from `files`, or are copied by the kernel if that is `None`.
fn member(
    writer: &mut Writer<Encoder<Counted>>,
    entry: &Entry,
    header: &Header,
    files: Option<&mut Files>,
) -> Result<()> {
    match (&entry.data, files) {
        (Data::None, _) => writer.append(header, b"")?,
        (Data::Bytes(bytes), _) => writer.append(header, bytes)?,
        (Data::File(..), Some(files)) => writer.append_pieces(header, |put| files.next(put))?,
        (Data::File(path, length, whole), None) => {
            let shown = || path.display().to_string();
            let mut file = File::open(path).with_context(|| format!("cannot open {}", shown()))?;
            let now = file.metadata().with_context(shown)?.len();
            ensure!(!whole || now == u64::from(*length), "{}: it has changed while it was read", shown());
            writer
                .append_with(header, |out, length| {
                    let copied = copy(out, &file, length)?;
                    io::copy(&mut (&mut file).take(u64::from(length) - copied), out).map(|rest| copied + rest)
                })
                .with_context(shown)?;
        }
    }
    Ok(())
}

/// Lets the kernel copy what it can of a file. Returns how many bytes; the file is read from there on.
fn copy(out: &mut Encoder<Counted>, file: &File, length: u32) -> io::Result<u64> {
    let Encoder::None(buffer) = out else { return Ok(0) };
    buffer.flush()?;
    let counted = buffer.get_mut();
    let copied = counted.out.copy_from(file, length.into())?;
    counted.bytes += copied;
    Ok(copied)
}

impl Summary for Created {
    fn text(&self) -> String {
        let mut rows = vec![row("image", format!("{}, {}", self.image, size::human(self.bytes)))];
        rows.extend(self.segments.iter().map(|segment| {
            let Segment { offset, compression, entries, inodes, data } = segment;
            let data = size::human(*data);
            row(
                "segment",
                format!("at byte {offset}: {compression}, {entries} entries ({inodes} inodes), {data}"),
            )
        }));
        table(&rows)
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}
