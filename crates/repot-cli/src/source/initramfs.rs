//! An existing initramfs as a source: all its segments merged by the kernel's rules, whatever their
//! compression.
//!
//! What the kernel or its CPU code looks for in front of everything else (microcode, ACPI tables) stays
//! there, byte by byte: it is found by its place in the image, and its alignment matters.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Error, Result, bail, ensure};
use repot::manifest;

use super::limits::{self, Weight};
use super::notes::Notes;
use super::tarball::Range;
use crate::codec::{Compression, any};
use crate::image::xattr_list::stamp;
use crate::newc::{self, Header, Item};
use crate::survey::place::{Lost, Placed};
use crate::survey::segments::{self, Segment, Stop, Visit};
use crate::survey::spool::{self, Spool};
use crate::survey::window::Window;
use crate::tree::{Contents, Id, Kind, Tree};

/// An initramfs that was read.
#[derive(Debug)]
pub(crate) struct Initramfs {
    pub(crate) tree: Tree,
    /// What stays in front of everything else.
    pub(crate) front: Option<Contents>,
    pub(crate) notes: Notes,
}

/// Bytes of an attribute manifest that are read at most.
const TEXT: u64 = 16 << 20;

/// Whether a file is an initramfs: it begins with a newc archive, compressed or not.
pub(super) fn is_one(file: &Arc<File>) -> bool {
    let mut magic = [0; 6];
    let mut input = BufReader::new(Range::new(file.clone(), 0, u64::MAX));
    let read = any::decompressed(&mut input).and_then(|mut inner| inner.read_exact(&mut magic));
    read.is_ok() && matches!(&magic, b"070701" | b"070702")
}

/// Reads an initramfs. File contents go to an unnamed file in `scratch`.
pub(super) fn open(file: &Arc<File>, name: &str, scratch: &Path, weight: &mut Weight) -> Result<Initramfs> {
    let len = file.metadata().with_context(|| format!("cannot stat {name}"))?.len();
    let front = front(file).with_context(|| name.to_string())?;
    ensure!(front < len, "{name} holds only what belongs in front of an initramfs, such as microcode");
    behind(file, (front, len), name, scratch, weight)
}

/// The same, but with what belongs in front among the entries.
pub(crate) fn whole(file: &Arc<File>, name: &str, scratch: &Path, weight: &mut Weight) -> Result<Initramfs> {
    let len = file.metadata().with_context(|| format!("cannot stat {name}"))?.len();
    behind(file, (0, len), name, scratch, weight)
}

/// Reads what is behind the front.
fn behind(
    file: &Arc<File>,
    (front, len): (u64, u64),
    name: &str,
    scratch: &Path,
    weight: &mut Weight,
) -> Result<Initramfs> {
    let spool = tempfile::tempfile_in(scratch)
        .with_context(|| format!("cannot create a temporary file in {}", scratch.display()))?;
    let mut reader = Reader {
        placed: Placed::default(),
        spool: Arc::new(spool),
        written: 0,
        packed: len,
        payload: Spool::default(),
        manifests: Vec::new(),
        notes: Notes::default(),
        weight,
    };
    segments::read_window(&mut Window::new(file.clone(), front, len), &mut reader).with_context(|| {
        let behind = if front > 0 { format!(", behind the first {front} bytes") } else { String::new() };
        format!("{name}{behind}")
    })?;
    let Reader { placed, payload, manifests, mut notes, .. } = reader;
    let mut tree = placed.tree;
    if !payload.is_empty() {
        tree = payload.open(&tree).with_context(|| name.to_string())?.tree;
        tree.unlink(Tree::ROOT, repot::payload::DIRECTORY.as_bytes());
    }
    for (_, text) in manifests {
        attributes(&mut tree, &text, &mut notes);
    }
    let front = (front > 0).then(|| Contents::Range(file.clone(), 0, front));
    Ok(Initramfs { tree, front, notes })
}

/// Sets the extended attributes in a manifest.
fn attributes(tree: &mut Tree, text: &[u8], notes: &mut Notes) {
    let mut at = None;
    for line in text.split(|&byte| byte == b'\n') {
        match manifest::line(line) {
            Some(manifest::Line::Path(path)) => {
                at = tree.find(&path);
                if at.is_none() {
                    notes.add("it has extended attributes, but does not exist", &path);
                }
            }
            Some(manifest::Line::Attribute(name, value)) if name == manifest::STAMP => {
                // A later segment has replaced the file: its attributes are not for the new one.
                let same = |id: &Id| manifest::same_stamp(&value, stamp(tree.inode(*id)).as_bytes(), true);
                at = at.filter(same);
            }
            Some(manifest::Line::Attribute(name, value)) => {
                if let Some(id) = at {
                    let attributes = &mut tree.inode_mut(id).attributes;
                    attributes.xattrs.insert(name, value);
                    attributes.restore_permissions();
                }
            }
            Some(manifest::Line::Blank) => {}
            None => notes.once("a line of /.repot-xattrs is not understood, and was left out".into()),
        }
    }
}

/// Receives the members.
struct Reader<'a> {
    placed: Placed,
    spool: Arc<File>,
    written: u64,
    /// Bytes of the image.
    packed: u64,
    payload: Spool,
    /// The attribute manifests with their names, in order.
    manifests: Vec<(Vec<u8>, Vec<u8>)>,
    notes: Notes,
    weight: &'a mut Weight,
}

impl Reader<'_> {
    fn member(&mut self, header: &Header, data: &mut dyn Read) -> Result<()> {
        if manifest::is_name(&header.name) {
            let text = text(data)?;
            self.weight.add(text.len())?;
            // A later one of the same name replaces it.
            self.manifests.retain(|(name, _)| *name != header.name);
            self.manifests.push((header.name.clone(), text));
            return Ok(());
        }
        if header.is_file()
            && let Some(name) = spool::below(&header.name)
        {
            self.weight.add(name.len())?;
            return self.payload.member(name, data);
        }
        let target = if header.is_symlink() { newc::target(data)? } else { Vec::new() };
        self.weight.add(header.name.len() + target.len())?;
        let id = match self.placed.place(header) {
            Ok(place) => place.id(),
            Err(Lost::Early) => {
                self.notes.add("it comes before its directory, so the kernel loses it too", &header.name);
                return Ok(());
            }
            Err(Lost::Directory) => {
                self.notes
                    .add("a directory with entries has its name, so the kernel keeps that", &header.name);
                return Ok(());
            }
            Err(Lost::Link) => {
                let why = "the first name of its inode was lost or replaced, so the kernel loses it too";
                self.notes.add(why, &header.name);
                return Ok(());
            }
        };
        let contents = if header.is_file() && header.filesize > 0 {
            self.contents(header, data)?
        } else {
            Contents::Bytes(Arc::default())
        };
        let kind = &mut self.placed.tree.inode_mut(id).kind;
        match kind {
            Kind::Symlink(_) => *kind = Kind::Symlink(target.into()),
            // The data of a file with several names come with one of them.
            Kind::File(Contents::Size(_)) => *kind = Kind::File(contents),
            Kind::File(_) if header.filesize > 0 => *kind = Kind::File(contents),
            Kind::File(_)
            | Kind::Directory(_)
            | Kind::Character(..)
            | Kind::Block(..)
            | Kind::Fifo
            | Kind::Socket => {}
        }
        Ok(())
    }

    fn contents(&mut self, header: &Header, data: &mut dyn Read) -> Result<Contents> {
        let (start, size) = (self.written, u64::from(header.filesize));
        self.weight.unpack(size)?;
        limits::proportion(start + size, self.packed)?;
        let mut spool = &*self.spool;
        let copied = io::copy(data, &mut Spooling(&mut spool))?;
        ensure!(copied == size, "the data of a member is truncated");
        self.written += copied;
        Ok(Contents::Range(self.spool.clone(), start, size))
    }
}

impl Visit for Reader<'_> {
    fn segment(&mut self, _: Segment) -> Result<()> {
        Ok(())
    }

    fn item(&mut self, item: Item, _: u64, data: &mut dyn Read) -> Result<()> {
        match item {
            Item::Member(header) => self.member(&header, data)?,
            Item::Skipped(header, why) => {
                self.notes.add(&format!("the kernel skips it: {why}"), &header.name);
            }
            Item::Trailer => self.placed.trailer(),
        }
        Ok(())
    }

    fn end(&mut self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}

fn text(data: &mut dyn Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    data.take(TEXT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes to the temporary file, with errors that say so.
struct Spooling<W>(W);

impl<W: Write> Write for Spooling<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .write(bytes)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot write a temporary file: {error}")))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Bytes of the uncompressed archives in front that hold nothing but data for the kernel itself.
fn front(file: &Arc<File>) -> Result<u64> {
    let mut front = Front { archive: 0, found: false, end: 0 };
    let len = file.metadata().context("cannot stat it")?.len();
    match segments::read_window(&mut Window::new(file.clone(), 0, len), &mut front) {
        Ok(()) => bail!("it holds only what belongs in front of an initramfs, such as microcode"),
        Err(error) if error.is::<Stop>() => Ok(front.end),
        Err(error) => Err(error),
    }
}

/// Looks for the first archive that is not for the kernel itself.
struct Front {
    /// Where the current archive begins.
    archive: u64,
    /// Whether any file for the kernel was found.
    found: bool,
    end: u64,
}

impl Front {
    fn stop(&mut self) -> Error {
        self.end = if self.found { self.archive } else { 0 };
        Stop.into()
    }
}

impl Visit for Front {
    fn segment(&mut self, segment: Segment) -> Result<()> {
        self.archive = segment.offset;
        if segment.compression == Compression::None { Ok(()) } else { Err(self.stop()) }
    }

    fn item(&mut self, item: Item, _: u64, _: &mut dyn Read) -> Result<()> {
        let Item::Member(header) = item else { return Ok(()) };
        let name = &header.name[..];
        let directory = header.is_dir() && (matches!(name, b"." | b"kernel") || name.starts_with(b"kernel/"));
        // dracut marks its early archive with this file.
        let file = header.is_file() && (name.starts_with(b"kernel/") || name == b"early_cpio");
        if !directory && !file {
            return Err(self.stop());
        }
        self.found |= file;
        Ok(())
    }

    fn end(&mut self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
}
