//! What is in an image, gathered while it streams by.
//!
//! Names and attributes are kept in a tree, built by the kernel's rules: later members override earlier ones,
//! and a member whose directory is not there yet is lost. Contents pass through; only their first bytes are
//! looked at, to know programs.

mod place;

use std::collections::{HashMap, HashSet};
use std::io::Read;

use anyhow::Result;
use serde::Serialize;

use crate::codec::Compression;
use crate::elf::{HEAD, Program};
use crate::inspect::payload::{self, Spool};
use crate::name::shown;
use crate::newc::{Header, Item, Totals};
use crate::ram::{Footprint, Need};
use crate::segments::{Segment, Visit};
use crate::source::limits;
use crate::tree::{Attributes, Contents, Id, Kind, Tree};
use crate::{config, init_binary, manifest, marker};

/// How many of the largest files are named.
const LARGEST: usize = 10;

/// A text or program that is read whole must be smaller than this.
const READ_WHOLE: u64 = 16 << 20;

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

/// What the end marker of the last archive that has one says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndMarker {
    /// There is none: repot did not make this image.
    None,
    /// It agrees with what is there.
    Whole,
    /// It does not.
    Wrong,
}

/// Everything that was seen.
#[derive(Debug)]
pub struct Survey {
    /// The root that the kernel would make of it.
    pub tree: Tree,
    /// The segments in order.
    pub segments: Vec<SegmentFacts>,
    /// All members.
    pub totals: Totals,
    /// Names beyond the first of inodes with several.
    pub hard_links: u64,
    /// The largest files with their sizes, the largest first.
    pub largest: Vec<(u64, String)>,
    /// Entries with extended attributes in the manifest.
    pub xattrs: u64,
    /// The end marker.
    pub end_marker: EndMarker,
    /// `/etc/repot.conf`.
    pub config: String,
    /// The contents of the member that was asked for.
    pub kept: Option<Vec<u8>>,
    /// The chunks of a payload.
    pub payload: Spool,
    /// What is wrong with members.
    pub problems: Vec<String>,
    /// The member to keep.
    keep: Option<Vec<u8>>,
    /// Programs that are repot.
    repots: HashSet<Id>,
    /// Which of several names came with the contents.
    sources: HashMap<Id, Vec<u8>>,
    programs: HashMap<Id, Program>,
    links: HashMap<(u32, u32, u32, u32), Id>,
    archive: Totals,
    weight: limits::Weight,
    lost: u64,
    skipped: u64,
}

impl Default for Survey {
    fn default() -> Survey {
        Survey {
            tree: Tree::new(Attributes { permissions: 0o755, ..Attributes::default() }),
            segments: Vec::new(),
            totals: Totals::default(),
            hard_links: 0,
            largest: Vec::new(),
            xattrs: 0,
            end_marker: EndMarker::None,
            config: String::new(),
            kept: None,
            keep: None,
            payload: Spool::default(),
            repots: HashSet::new(),
            sources: HashMap::new(),
            problems: Vec::new(),
            programs: HashMap::new(),
            links: HashMap::new(),
            archive: Totals::default(),
            weight: limits::Weight::default(),
            lost: 0,
            skipped: 0,
        }
    }
}

impl Survey {
    /// A survey that keeps the contents of the member of this name.
    #[must_use]
    pub fn keeping(name: &[u8]) -> Survey {
        Survey { keep: Some(name.to_vec()), ..Survey::default() }
    }

    /// Whether `/init` is repot.
    #[must_use]
    pub fn repot(&self) -> bool {
        self.tree.resolve(b"init").is_some_and(|id| self.repots.contains(&id))
    }

    /// The name of the member that has the contents of a file called `name`, which may be another name of it.
    #[must_use]
    pub fn source(&self, name: &[u8]) -> Vec<u8> {
        let id = self.tree.find(name);
        id.and_then(|id| self.sources.get(&id)).map_or_else(|| name.to_vec(), Clone::clone)
    }

    /// The root that `/init` makes of the image, where that has a payload; an error says what is wrong with it.
    #[must_use]
    pub fn unpacked(&self) -> Option<Result<payload::Root>> {
        (!self.payload.is_empty()).then(|| self.payload.open(&self.tree))
    }

    /// The memory that the image of so many bytes needs to boot.
    #[must_use]
    pub fn need(&self, bytes: u64) -> Need {
        match self.unpacked() {
            Some(Ok(root)) => root.inner.payload(bytes, root.facts.compressed),
            _ => Footprint::of(&self.tree).need(bytes),
        }
    }

    /// What a file is as a program.
    #[must_use]
    pub fn program(&self, id: Id) -> Program {
        self.programs.get(&id).cloned().unwrap_or(Program::Unknown)
    }

    /// Counts of members that the kernel leaves out without a word.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.lost > 1 {
            problems.push(format!("{} members in all come before their directory and are lost", self.lost));
        }
        if self.skipped > 1 {
            problems.push(format!("{} members in all are skipped by the kernel", self.skipped));
        }
        problems
    }

    fn member(&mut self, header: &Header, offset: u64, data: &mut dyn Read) -> Result<()> {
        self.count(header);
        if header.name == marker::NAME {
            return self.marker(data);
        }
        if header.name == manifest::NAME {
            let text = read_whole(data)?;
            self.xattrs =
                text.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"# file: ")).count() as u64;
        }
        if header.is_file()
            && let Some(name) = payload::below(&header.name)
        {
            self.payload.member(name, data)?;
        }
        let target = if header.is_symlink() { read_whole(data)? } else { Vec::new() };
        self.weight.add(header.name.len() + target.len())?;
        let Some(id) = self.place(header, offset) else { return Ok(()) };
        if header.is_symlink() {
            self.tree.inode_mut(id).kind = Kind::Symlink(target.into());
        } else if header.is_file() && header.filesize > 0 {
            self.file(id, header, data)?;
        }
        Ok(())
    }

    fn count(&mut self, header: &Header) {
        let key = (header.devmajor, header.devminor, header.ino, header.file_type());
        let again =
            header.nlink > 1 && !header.is_dir() && !header.is_symlink() && self.links.contains_key(&key);
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

    fn marker(&mut self, data: &mut dyn Read) -> Result<()> {
        let text = String::from_utf8_lossy(&read_whole(data)?).into_owned();
        // The marker does not count itself.
        let Totals { entries, inodes, bytes } = self.archive;
        let seen = Totals { entries: entries - 1, inodes: inodes - 1, bytes: bytes - text.len() as u64 };
        self.end_marker =
            if marker::parse(&text) == Some(seen) { EndMarker::Whole } else { EndMarker::Wrong };
        Ok(())
    }

    fn file(&mut self, id: Id, header: &Header, data: &mut dyn Read) -> Result<()> {
        let size = u64::from(header.filesize);
        self.tree.inode_mut(id).kind = Kind::File(Contents::Size(size));
        let chunk = payload::below(&header.name).is_some();
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
        (&mut *data).take(HEAD as u64).read_to_end(&mut bytes)?;
        let program = Program::parse(&bytes);
        let keep = self.keep.as_ref() == Some(&header.name);
        let fixed = matches!(program, Program::Elf { interpreter: None, .. });
        if (fixed || keep) && u64::from(header.filesize) <= READ_WHOLE {
            bytes.append(&mut read_whole(data)?);
        }
        if fixed && init_binary::is_repot(&bytes) {
            self.repots.insert(id);
        } else {
            // What the name stood for before may have been repot, in place.
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
        self.links.clear();
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
            self.problems.push("a segment follows one in lz4, which the kernel cannot find".into());
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
                self.links.clear();
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
