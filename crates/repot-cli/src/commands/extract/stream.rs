//! Writes members as they come.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use anyhow::{Context, Result};
use repot::manifest;
use rustix::fd::AsFd;
use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, openat};

use super::target::Target;
use super::yard::Yard;
use super::{inside, whole, xattr};
use crate::newc::{self, Header, Item};
use crate::source::limits::{self, Weight};
use crate::survey::place::{Key, attributes, key, linkable};
use crate::survey::segments::{Segment, Visit};
use crate::survey::spool::{self, Spool};
use crate::tree::{Attributes, Tree};

/// Bytes of an attribute manifest that are read at most.
const TEXT: u64 = 16 << 20;

/// Ends the reading: the image has a payload.
#[derive(Debug)]
pub(super) struct Payload;

impl std::fmt::Display for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the image has a payload")
    }
}

impl std::error::Error for Payload {}

/// Receives the members.
pub(super) struct Stream<'a> {
    yard: &'a Yard,
    /// A directory for each segment.
    parts: bool,
    segment: usize,
    targets: Vec<Target>,
    /// The first names of inodes with several.
    links: HashMap<Key, Vec<u8>>,
    /// Names in the root that do not exist in the target directory.
    reserved: HashSet<Vec<u8>>,
    payload: Spool,
    weight: Weight,
    unpacked: u64,
    /// Bytes of the image.
    packed: u64,
}

impl Stream<'_> {
    pub(super) fn new(yard: &Yard, parts: bool, packed: u64) -> Stream<'_> {
        Stream {
            yard,
            parts,
            segment: 0,
            targets: Vec::new(),
            links: HashMap::new(),
            reserved: HashSet::new(),
            payload: Spool::default(),
            weight: Weight::default(),
            unpacked: 0,
            packed,
        }
    }

    /// Whether the image has anything in it.
    pub(super) fn has_segments(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Writes the payload, and returns what was written into.
    pub(super) fn finish(mut self) -> Result<Vec<Target>> {
        if !self.payload.is_empty() {
            let root = self.payload.open(&Tree::new(Attributes::default()))?.tree;
            let mut target = self.part("payload")?;
            whole::write(&mut target, &root, &whole::all(&root, &[]))?;
            self.targets.push(target);
        }
        Ok(self.targets)
    }

    fn part(&self, name: &str) -> Result<Target> {
        self.yard.reserve(name.as_bytes())?;
        let root = self.yard.root()?;
        let made = mkdirat(&root, name, Mode::from_raw_mode(0o755));
        if made != Err(rustix::io::Errno::EXIST) || self.yard.is_fresh() {
            made.with_context(|| format!("cannot create the directory {name}"))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let part = openat(&root, name, flags, Mode::empty());
        let path = format!("{}/{name}", self.yard.path().display());
        Target::new(part.with_context(|| format!("cannot open {path}"))?, path, self.yard.is_fresh())
    }

    fn member(&mut self, header: &Header, data: &mut dyn Read) -> Result<()> {
        let name = &header.name[..];
        let text = if manifest::is_name(name) {
            text(data)?
        } else if header.is_symlink() {
            newc::target(data)?
        } else {
            Vec::new()
        };
        self.weight.add(name.len() + text.len())?;
        if header.is_file()
            && let Some(name) = spool::below(name)
        {
            return if self.parts { self.payload.member(name, data) } else { Err(Payload.into()) };
        }
        if !self.parts && !self.reserved.contains(first(name)) {
            self.yard.reserve(first(name))?;
            self.reserved.insert(first(name).to_vec());
        }
        let Some(target) = self.targets.last_mut() else { return Ok(()) };
        if manifest::is_name(name) {
            target.manifests.retain(|(other, _)| other != name);
            target.manifests.push((name.to_vec(), text));
            return Ok(());
        }
        self.unpacked += u64::from(header.filesize);
        self.weight.unpack(header.filesize.into())?;
        limits::proportion(self.unpacked, self.packed)?;
        let attributes = attributes(header);
        if linkable(header) {
            if let Some(first) = self.links.get(&key(header)) {
                return link(target, header, first, &attributes, data);
            }
            self.links.insert(key(header), name.to_vec());
        }
        let device = (header.rdevmajor, header.rdevminor);
        match header.file_type() {
            0o040_000 => target.directory(name, &attributes),
            0o100_000 => target.file(name, &attributes, data),
            0o120_000 => target.symlink(name, &text, &attributes),
            kind @ (0o020_000 | 0o060_000 | 0o010_000 | 0o140_000) => {
                target.node(name, kind, device, &attributes)
            }
            _ => {
                target.notes.add("it is of no known type, so the kernel ignores it", name);
                Ok(())
            }
        }
    }
}

fn link(
    target: &mut Target,
    header: &Header,
    first: &[u8],
    attributes: &Attributes,
    data: &mut dyn Read,
) -> Result<()> {
    if !target.link(&header.name, first)? {
        let why = "the first name of its inode does not exist, so the kernel loses it";
        target.notes.add(why, &header.name);
    } else if header.is_file() && header.filesize > 0 {
        target.fill(&header.name, attributes, data)?;
    }
    Ok(())
}

/// The first name of a path.
fn first(path: &[u8]) -> &[u8] {
    path.split(|&byte| byte == b'/').next().unwrap_or_default()
}

fn text(data: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    data.take(TEXT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Visit for Stream<'_> {
    fn segment(&mut self, _: Segment) -> Result<()> {
        self.segment += 1;
        if self.parts {
            // One thread at a time writes.
            self.targets.last_mut().map_or(Ok(()), Target::settle)?;
            self.targets.push(self.part(&self.segment.to_string())?);
        } else if self.targets.is_empty() {
            self.targets.push(self.yard.target()?);
        }
        Ok(())
    }

    fn item(&mut self, item: Item, _: u64, data: &mut dyn Read) -> Result<()> {
        match item {
            Item::Member(header) => return self.member(&header, data),
            Item::Skipped(header, why) => {
                if let Some(target) = self.targets.last_mut() {
                    target.notes.add(&format!("the kernel skips it: {why}"), &header.name);
                }
            }
            Item::Trailer => self.links.clear(),
        }
        Ok(())
    }

    fn end(&mut self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}

/// Sets the extended attributes of the manifests, as `/init` does.
pub(super) fn manifests(target: &mut Target) {
    for (_, text) in std::mem::take(&mut target.manifests) {
        let mut at = None;
        for line in text.split(|&byte| byte == b'\n') {
            match manifest::line(line) {
                Some(manifest::Line::Path(path)) => {
                    let found = inside::exactly(target.root.as_fd(), &path, OFlags::PATH);
                    at = found.ok().map(|fd| (fd, path.clone()));
                    if at.is_none() {
                        target.notes.add("it has extended attributes, but does not exist", &path);
                    }
                }
                Some(manifest::Line::Attribute(name, value)) if name == manifest::STAMP => {
                    // A later segment has replaced the file: its attributes are not for the new one.
                    at = at.filter(|(fd, _)| {
                        stamp(fd).is_some_and(|found| manifest::same_stamp(&value, found.as_bytes(), true))
                    });
                }
                Some(manifest::Line::Attribute(name, value)) => {
                    if let Some((fd, path)) = &at {
                        xattr::xattr(&mut target.notes, fd.as_fd(), path, &name, &value);
                    }
                }
                Some(manifest::Line::Blank) | None => {}
            }
        }
    }
}

/// The stamp of an entry on disk.
fn stamp(fd: impl AsFd) -> Option<String> {
    let stat = fstat(fd).ok()?;
    let sized = matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Symlink);
    let size = if sized { u64::try_from(stat.st_size).ok()? } else { 0 };
    Some(manifest::stamp(stat.st_mode, size, stat.st_mtime))
}
