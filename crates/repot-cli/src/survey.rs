//! Reading an initramfs: what the kernel would make of it, gathered in one pass.
//!
//! Names and attributes go into a tree that follows the kernel's rules: later members override earlier ones,
//! and a member whose directory does not exist yet is lost. File contents pass through. Only their first
//! bytes are kept, to recognize programs.

mod entries;
pub(crate) mod place;
pub mod segments;
pub mod spool;

use std::collections::{HashMap, HashSet};
use std::io::Read;

use anyhow::Result;
use repot::facts::program::{Program, Why};
use repot::{manifest, marker};
use serde::Serialize;

use self::place::Placed;
use self::segments::{Segment, Visit};
use self::spool::Spool;
use crate::codec::Compression;
use crate::image::config;
use crate::init_binary;
use crate::newc::{Header, Item, Totals};
use crate::programs;
use crate::ram::{Footprint, Need};
use crate::report::name::shown;
use crate::source::limits;
use crate::tree::{Contents, Id, Kind, Tree};

/// Number of files listed as the largest.
const LARGEST: usize = 10;

/// Bytes of a text or program that are read into memory at most.
const READ_WHOLE: u64 = 16 << 20;

/// Bytes of a program that are read into memory: enough for the headers of most.
const HEAD: u64 = 4096;
/// Bytes of the ELF header.
const ELF_HEADER: usize = 64;

/// One segment of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentFacts {
    /// Its first byte in the image.
    pub offset: u64,
    /// Its bytes in the image.
    pub bytes: u64,
    /// How it is compressed.
    #[serde(serialize_with = "crate::report::as_text")]
    pub compression: Compression,
    /// Bytes of its archives.
    pub unpacked: u64,
    /// Members.
    pub entries: u64,
    /// Whether its last archive ended with `TRAILER!!!`.
    pub trailer: bool,
}

/// The result of comparing the last end marker with the members before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndMarker {
    /// The image has no end marker: repot did not make it.
    #[default]
    None,
    /// The marker agrees with the members.
    Whole,
    /// It does not.
    Wrong,
}

/// Everything that one pass over an image finds.
#[derive(Debug, Default)]
pub struct Survey {
    /// The segments in order.
    pub segments: Vec<SegmentFacts>,
    /// All members.
    pub totals: Totals,
    /// Names beyond the first of inodes with several.
    pub hard_links: u64,
    /// The largest files with their sizes, the largest first.
    pub largest: Vec<(u64, String)>,
    /// Entries in the list of extended attributes.
    pub xattrs: u64,
    /// The end marker.
    pub end_marker: EndMarker,
    /// `/etc/repot.conf`.
    pub config: String,
    /// The contents of the member given to [`Survey::keeping`].
    pub kept: Option<Vec<u8>>,
    /// The chunks of a payload.
    pub payload: Spool,
    /// What is wrong with members.
    pub problems: Vec<String>,
    placed: Placed,
    /// Name of the member whose contents are kept.
    keep: Option<Vec<u8>>,
    /// Programs that are repot.
    repots: HashSet<Id>,
    /// For an inode with hard links, the name whose member carried the contents.
    sources: HashMap<Id, Vec<u8>>,
    programs: HashMap<Id, Result<Program, Why>>,
    /// Members of the current archive.
    archive: Totals,
    weight: limits::Weight,
    lost: u64,
    skipped: u64,
}

impl Survey {
    /// A survey that keeps the contents of the member of this name.
    #[must_use]
    pub fn keeping(name: &[u8]) -> Survey {
        Survey { keep: Some(name.to_vec()), ..Survey::default() }
    }

    /// The root that the kernel would create.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.placed.tree
    }

    /// Whether `/init` is repot.
    #[must_use]
    pub fn repot(&self) -> bool {
        self.tree().resolve(b"init").is_some_and(|id| self.repots.contains(&id))
    }

    /// The name whose member carried the contents of the file called `name`: another one if it is a hard
    /// link.
    #[must_use]
    pub fn source(&self, name: &[u8]) -> Vec<u8> {
        let id = self.tree().find(name);
        id.and_then(|id| self.sources.get(&id)).map_or_else(|| name.to_vec(), Clone::clone)
    }

    /// The root that `/init` makes of an image with a payload, or what is wrong with the payload.
    #[must_use]
    pub fn unpacked(&self) -> Option<Result<spool::Root>> {
        (!self.payload.is_empty()).then(|| self.payload.open(self.tree()))
    }

    /// The memory that the image, of this size in bytes, needs to boot.
    #[must_use]
    pub fn need(&self, bytes: u64) -> Need {
        match self.unpacked() {
            Some(Ok(root)) => root.inner.payload(bytes, root.facts.compressed),
            _ => Footprint::of(self.tree()).need(bytes),
        }
    }

    /// The format of a file.
    pub fn program(&self, id: Id) -> Result<Program, Why> {
        self.programs.get(&id).cloned().unwrap_or(Err(Why::Format))
    }

    /// How many members the kernel drops silently, if more than the one reported in `problems`.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.lost > 1 {
            problems.push(format!("{} members in total come before their directory and are lost", self.lost));
        }
        if self.skipped > 1 {
            problems.push(format!("the kernel skips {} members in total", self.skipped));
        }
        problems
    }

    fn member(&mut self, header: &Header, offset: u64, data: &mut dyn Read) -> Result<()> {
        self.count(header);
        if header.name == marker::END.as_bytes() {
            return self.marker(data);
        }
        if header.name == manifest::NAME.as_bytes() {
            let text = read_whole(data)?;
            self.xattrs =
                text.split(|&byte| byte == b'\n').filter(|line| line.starts_with(manifest::FILE)).count()
                    as u64;
        }
        if header.is_file()
            && let Some(name) = spool::below(&header.name)
        {
            self.payload.member(name, data)?;
        }
        let target = if header.is_symlink() { read_whole(data)? } else { Vec::new() };
        self.weight.add(header.name.len() + target.len())?;
        let Ok(id) = self.placed.place(header) else {
            self.lose(header, offset);
            return Ok(());
        };
        if header.is_symlink() {
            self.placed.tree.inode_mut(id).kind = Kind::Symlink(target.into());
        } else if header.is_file() && header.filesize > 0 {
            self.file(id, header, data)?;
        }
        Ok(())
    }

    fn count(&mut self, header: &Header) {
        let again = self.placed.is_hard_link(header);
        let bytes = if header.is_file() { u64::from(header.filesize) } else { 0 };
        for totals in [&mut self.totals, &mut self.archive] {
            totals.entries += 1;
            totals.inodes += u64::from(!again);
            totals.bytes += bytes;
        }
        self.hard_links += u64::from(again);
        if let Some(segment) = self.segments.last_mut() {
            segment.entries += 1;
            segment.trailer = false;
        }
    }

    fn lose(&mut self, header: &Header, offset: u64) {
        self.lost += 1;
        if self.lost == 1 {
            let name = shown(&header.name);
            self.problems.push(format!(
                "\"{name}\" comes before its directory and is lost (byte {offset} of its archive)"
            ));
        }
    }

    fn marker(&mut self, data: &mut dyn Read) -> Result<()> {
        let text = read_whole(data)?;
        // The marker does not count itself.
        let Totals { entries, inodes, bytes } = self.archive;
        let seen = Totals { entries: entries - 1, inodes: inodes - 1, bytes: bytes - text.len() as u64 };
        self.end_marker =
            if Totals::parse(&text) == Some(seen) { EndMarker::Whole } else { EndMarker::Wrong };
        Ok(())
    }

    fn file(&mut self, id: Id, header: &Header, data: &mut dyn Read) -> Result<()> {
        let size = u64::from(header.filesize);
        self.placed.tree.inode_mut(id).kind = Kind::File(Contents::Size(size));
        let chunk = spool::below(&header.name).is_some();
        if !chunk
            && (self.largest.len() < LARGEST
                || self.largest.last().is_some_and(|(smallest, _)| size > *smallest))
        {
            let place = self.largest.partition_point(|(other, _)| *other >= size);
            self.largest.insert(place, (size, header.name.escape_ascii().to_string()));
            self.largest.truncate(LARGEST);
        }
        if header.nlink > 1 {
            self.sources.insert(id, header.name.clone());
        }
        if header.name == config::PATH.as_bytes() {
            self.config = String::from_utf8_lossy(&read_whole(data)?).into_owned();
        } else if header.mode & 0o111 != 0 || self.keep.as_ref() == Some(&header.name) {
            self.program_file(id, header, data)?;
        }
        Ok(())
    }

    fn program_file(&mut self, id: Id, header: &Header, data: &mut dyn Read) -> Result<()> {
        let mut bytes = Vec::new();
        (&mut *data).take(HEAD).read_to_end(&mut bytes)?;
        let mut beyond = false;
        let mut program = programs::of_head(&bytes, &mut beyond);
        if beyond && u64::from(header.filesize) > HEAD {
            program = if u64::from(header.filesize) <= READ_WHOLE {
                bytes.append(&mut read_whole(data)?);
                programs::of_bytes(&bytes)
            } else {
                // The interpreter of so large a program is not tested.
                programs::of_bytes(&bytes[..ELF_HEADER])
            };
        }
        let keep = self.keep.as_ref() == Some(&header.name);
        let fixed = matches!(program, Ok(Program { interpreter: None, .. }));
        if (fixed || keep) && u64::from(header.filesize) <= READ_WHOLE {
            bytes.append(&mut read_whole(data)?);
        }
        if fixed && init_binary::is_repot(&bytes) {
            self.repots.insert(id);
        } else {
            // The member may overwrite a file that was repot.
            self.repots.remove(&id);
        }
        self.programs.insert(id, program);
        if keep {
            self.kept = (bytes.len() == header.filesize as usize).then_some(bytes);
        }
        Ok(())
    }
}

impl Visit for Survey {
    fn segment(&mut self, segment: Segment) -> Result<()> {
        let Segment { offset, compression } = segment;
        self.placed.new_archive();
        self.archive = Totals::default();
        self.segments.push(SegmentFacts {
            offset,
            bytes: 0,
            compression,
            unpacked: 0,
            entries: 0,
            trailer: false,
        });
        if let [.., before, _] = &self.segments[..]
            && before.compression == Compression::Lz4
        {
            self.problems.push("a segment follows an lz4 segment: the kernel does not find it".into());
        }
        Ok(())
    }

    fn item(&mut self, item: Item, offset: u64, data: &mut dyn Read) -> Result<()> {
        match item {
            Item::Member(header) => self.member(&header, offset, data)?,
            Item::Skipped(header, why) => {
                self.skipped += 1;
                if self.skipped == 1 {
                    let name = shown(&header.name);
                    self.problems
                        .push(format!("the kernel skips \"{name}\" (byte {offset} of its archive): {why}"));
                }
            }
            Item::Trailer => {
                self.placed.new_archive();
                self.archive = Totals::default();
                if let Some(segment) = self.segments.last_mut() {
                    segment.trailer = true;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, offset: u64, decompressed: u64) -> Result<()> {
        if let Some(segment) = self.segments.last_mut() {
            segment.bytes = offset - segment.offset;
            segment.unpacked = decompressed;
        }
        Ok(())
    }
}

fn read_whole(data: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    data.take(READ_WHOLE).read_to_end(&mut bytes)?;
    Ok(bytes)
}
