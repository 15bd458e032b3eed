//! Reading an initramfs: what the kernel would make of it, gathered in one pass.
//!
//! Names and attributes go into a tree that follows the kernel's rules: later members override earlier ones,
//! and a member whose directory does not exist yet is lost. File contents pass through. Only their first
//! bytes are kept, to recognize programs.

mod bootconfig;
mod described;
mod entries;
pub mod file;
pub(crate) mod locate;
mod manifests;
mod notes;
pub(crate) mod place;
mod program;
pub mod segments;
pub mod spool;
mod texts;
pub(crate) mod window;

use std::collections::HashMap;
use std::io::Read;

use anyhow::Result;
use repot::facts::program::{Program, Why};
use repot::{manifest, marker};
use serde::Serialize;

use self::manifests::Manifests;
use self::notes::{Notes, Surprise};
use self::place::{Lost, Place, Placed};
use self::segments::{Segment, Visit};
use self::spool::Spool;
use self::texts::Texts;
use crate::codec::Compression;
use crate::newc::{self, Header, Item, Totals};
use crate::ram::{Footprint, Need};
use crate::report::name::shown;
use crate::source::limits;
use crate::tree::{Contents, Id, Kind, Tree};

/// Number of files listed as the largest.
const LARGEST: usize = 10;

/// Bytes of a text or program that are read into memory at most.
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
    /// The end marker.
    pub end_marker: EndMarker,
    /// The description of the program for the runner, outside a payload.
    pub description: Option<Vec<u8>>,
    /// The contents of the member given to [`Survey::keeping`].
    pub kept: Option<Vec<u8>>,
    /// The chunks of a payload.
    pub payload: Spool,
    /// The boot configuration behind the image, up to its end.
    pub bootconfig: Option<Vec<u8>>,
    /// What is wrong with segments.
    pub problems: Vec<String>,
    notes: Notes,
    manifests: Manifests,
    placed: Placed,
    /// Whether an archive promised an end marker, and the last one that is complete: what the init finds.
    marks: (bool, Option<Totals>),
    /// Name of the member whose contents are kept.
    keep: Option<Vec<u8>>,
    /// Programs that are repot, and their features.
    repots: HashMap<Id, Vec<&'static str>>,
    /// For an inode with hard links, the name whose member carried the contents.
    sources: HashMap<Id, Vec<u8>>,
    programs: HashMap<Id, Result<Program, Why>>,
    /// Files that may be `/etc/repot.conf`, which may be a link, or lie below one.
    texts: Texts,
    /// Members of the current archive.
    archive: Totals,
    weight: limits::Weight,
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
        self.features().is_some()
    }

    /// What `/init` can do, if it is repot.
    #[must_use]
    pub fn features(&self) -> Option<&[&'static str]> {
        let id = self.tree().resolve(b"init")?;
        self.repots.get(&id).map(Vec::as_slice)
    }

    /// Number of entries that get extended attributes from a manifest.
    #[must_use]
    pub fn xattrs(&self) -> u64 {
        self.manifests.entries(self.tree())
    }

    /// The name whose member carried the contents of the file called `name`: another one if it is a hard
    /// link.
    #[must_use]
    pub fn source(&self, name: &[u8]) -> Vec<u8> {
        let id = self.tree().find(name);
        id.and_then(|id| self.sources.get(&id)).map_or_else(|| name.to_vec(), Clone::clone)
    }

    /// The root that `/init` makes of an image with a payload, measured in pages of this size; or what is
    /// wrong with the payload.
    #[must_use]
    pub fn unpacked(&self, page: u64) -> Option<Result<spool::Root>> {
        (!self.payload.is_empty()).then(|| self.payload.open_on(self.tree(), page))
    }

    /// The memory that the image, of this size in bytes, needs to boot on pages of this size.
    #[must_use]
    pub fn need(&self, bytes: u64, page: u64) -> Need {
        match self.unpacked(page) {
            Some(Ok(root)) => root.inner.payload(bytes, root.facts.compressed),
            _ => Footprint::of(self.tree(), page).need(bytes),
        }
    }

    /// Why the init would refuse to boot the unpacked image as truncated.
    #[must_use]
    pub fn truncated(&self) -> Option<&'static str> {
        marker::missing(self.marks.0, self.marks.1.as_ref())
    }

    /// The format of a file.
    pub fn program(&self, id: Id) -> Result<Program, Why> {
        self.programs.get(&id).cloned().unwrap_or(Err(Why::Format))
    }

    /// What the kernel does silently with members.
    #[must_use]
    pub fn surprises(&self) -> Vec<String> {
        self.notes.lines()
    }

    fn member(&mut self, header: &Header, offset: u64, data: &mut dyn Read) -> Result<()> {
        self.count(header);
        if header.name == marker::END.as_bytes() {
            return self.marker(data);
        }
        if header.checksum {
            self.notes.add(Surprise::Checksum, || {
                "the members have checksums (magic 070702): Linux 5.10 does not read them, 6.1 does".into()
            });
        }
        if manifest::is_name(&header.name) {
            self.manifests.read(&header.name, &read_whole(data)?);
        }
        if header.is_file()
            && let Some(name) = spool::below(&header.name)
        {
            self.payload.member(name, data)?;
        }
        self.marks.0 |= header.name == marker::BEGIN.as_bytes();
        let target = if header.is_symlink() { newc::target(data)? } else { Vec::new() };
        self.weight.add(header.name.len() + target.len())?;
        let place = match self.placed.place(header) {
            Ok(place) => place,
            Err(lost) => {
                self.lose(lost, header, offset);
                return Ok(());
            }
        };
        self.surprise(place, header, offset);
        let id = place.id();
        if let Place::Existing(id) = place {
            self.texts.forget(id);
            self.programs.remove(&id);
            self.repots.remove(&id);
        }
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

    fn lose(&mut self, lost: Lost, header: &Header, offset: u64) {
        let (surprise, why) = match lost {
            Lost::Early => (Surprise::Early, "comes before its directory and is lost"),
            Lost::Directory => (Surprise::Directory, "is lost: a directory with entries has this name"),
            Lost::Link => (Surprise::Link, "is lost: the first name of its inode was lost or replaced"),
        };
        self.notes
            .add(surprise, || format!("\"{}\" {why} (byte {offset} of its archive)", shown(&header.name)));
    }

    fn surprise(&mut self, place: Place, header: &Header, offset: u64) {
        let name = || shown(&header.name);
        match place {
            Place::Existing(id) if header.is_file() && self.placed.is_shared(id) => {
                self.notes.add(Surprise::Shared, || {
                    format!("\"{}\" overwrites a file in place: its other hard links change too", name())
                });
            }
            Place::Unlinked(_) => {
                self.notes.add(Surprise::Unlinked, || {
                    format!(
                        "the directory \"{}\" replaces a symbolic link: what was found through the link is no \
                         longer found (byte {offset} of its archive)",
                        name()
                    )
                });
            }
            Place::New(_) | Place::Existing(_) => {}
        }
    }

    fn marker(&mut self, data: &mut dyn Read) -> Result<()> {
        let text = read_whole(data)?;
        // The marker does not count itself.
        let Totals { entries, inodes, bytes } = self.archive;
        let seen = Totals { entries: entries - 1, inodes: inodes - 1, bytes: bytes - text.len() as u64 };
        self.marks.1 = Totals::parse(&text);
        self.end_marker = if self.marks.1 == Some(seen) { EndMarker::Whole } else { EndMarker::Wrong };
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
        if header.name == repot::run::DESCRIPTION.as_bytes() {
            self.description = Some(read_whole(data)?);
        } else if Texts::wants(header) {
            self.texts.keep(id, &read_whole(data)?);
        } else if header.mode & 0o111 != 0 || self.keep.as_ref() == Some(&header.name) {
            self.program_file(id, header, data)?;
        }
        Ok(())
    }
}

impl Visit for Survey {
    fn segment(&mut self, segment: Segment) -> Result<()> {
        let Segment { offset, compression, unreadable } = segment;
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
            self.problems.push(
                "a segment follows an lz4 segment: kernels before 5.14 find it only if they have a later fix \
                 (lib/decompress_unlz4.c, zero padding)"
                    .into(),
            );
        }
        if let Some(why) = unreadable {
            self.problems
                .push(format!("the kernel cannot decompress the segment at byte {offset}: it is {why}"));
        }
        Ok(())
    }

    fn item(&mut self, item: Item, offset: u64, data: &mut dyn Read) -> Result<()> {
        match item {
            Item::Member(header) => self.member(&header, offset, data)?,
            Item::Skipped(header, why) => {
                self.notes.add(Surprise::Skipped, || {
                    let name = shown(&header.name);
                    format!("the kernel skips \"{name}\" (byte {offset} of its archive): {why}")
                });
            }
            Item::Trailer => {
                self.placed.trailer();
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

    fn bootconfig(&mut self, bytes: Vec<u8>) {
        self.bootconfig = Some(bytes);
    }
}

fn read_whole(data: &mut dyn Read) -> Result<Vec<u8>> {
    read_up_to(data, READ_WHOLE)
}

fn read_up_to(data: &mut dyn Read, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    data.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
