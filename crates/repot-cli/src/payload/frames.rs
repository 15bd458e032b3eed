//! The archive in frames: directories first, then everything else by its first name, then hard links.
//!
//! A frame holds a few MiB of archive and starts at a header, so each can be unpacked independently. For a
//! file larger than a frame, the header is a frame and so is each piece of the contents. The number of
//! threads does not change the frames.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::{Context, Result, ensure};
use repot::payload::index::{Frame, Index, LIMIT, WINDOW_LOG};
use zstd::stream::Encoder;
use zstd::zstd_safe::CParameter;

use super::chunks::Chunks;
use super::ordered::ordered;
use super::pages::{Counted, Measure};
use super::tar_header::{BLOCK, header, pad};
use crate::report::name::shown;
use crate::tree::{Contents, Id, Kind, Tree};

/// Bytes of archive in one frame, about. docs/payload.md has the measurements.
const FRAME: u64 = 4 << 20;
/// Maximum length of a target that tmpfs stores in the inode (`SHORT_SYMLINK_LEN` without the NUL).
const SHORT_SYMLINK: usize = 127;
/// Bytes of memory for an extended attribute besides its name and value.
const XATTR: u64 = 32;

/// A payload in a file.
#[derive(Debug)]
pub struct Payload {
    /// Its index.
    pub index: Index,
    /// The chunks, concatenated.
    pub file: File,
}

/// The contents of one frame.
enum Part {
    /// Entries by their paths. `last` is for the frame of hard links, which has no contents.
    Entries { entries: Vec<(Box<[u8]>, Id)>, last: bool },
    /// The header of a file that is larger than a frame.
    Header(Box<[u8]>, Id),
    /// A piece of the contents of such a file.
    Piece { path: Box<[u8]>, id: Id, from: u64, length: u64 },
}

/// A tree, sorted into frames.
struct Parts<'a> {
    tree: &'a Tree,
    directories: Vec<(Box<[u8]>, Id)>,
    /// Files larger than a frame, in pieces.
    large: Vec<Part>,
    /// Other files, links and nodes by frame, and an upper bound for the bytes of archive in the last frame.
    files: Vec<Vec<(Box<[u8]>, Id)>>,
    filled: u64,
    /// Hard links, and the first name of each inode.
    links: Vec<(Box<[u8]>, Id)>,
    first: HashMap<Id, Box<[u8]>>,
    index: Index,
}

/// Writes the payload of a tree to `file`.
pub(super) fn write(tree: &Tree, level: i32, file: File, progress: &mut dyn FnMut(u64)) -> Result<Payload> {
    let mut parts = Parts {
        tree,
        directories: vec![(Box::default(), Tree::ROOT)],
        large: Vec::new(),
        files: Vec::new(),
        filled: FRAME,
        links: Vec::new(),
        first: HashMap::new(),
        index: Index { inodes: 1, ..Index::default() },
    };
    parts.count_attributes(Tree::ROOT);
    parts.below(&mut Vec::new(), Tree::ROOT);
    let Parts { directories, large, files, links, first, mut index, .. } = parts;
    let entries = |entries| Part::Entries { entries, last: false };
    let mut all = vec![entries(directories)];
    all.extend(large);
    all.extend(files.into_iter().map(entries));
    all.push(Part::Entries { entries: links, last: true });

    let mut chunks = Chunks::new(file);
    let mut pages = Counted::default();
    let work = |part: &Part| {
        let mut measure = Measure::new()?;
        let archive = part.archive(tree, &first, &mut measure)?;
        let packed = compress(&archive, level, part.window(tree)).context("cannot compress the payload")?;
        Ok((packed, archive.len() as u64, measure.finish()))
    };
    ordered(&all, work, |part, (packed, content, counted)| {
        pages += counted;
        let start = chunks.position();
        chunks.write_all(&packed).context("cannot write a temporary file")?;
        let more = matches!(part, Part::Piece { .. });
        index.frames.push(Frame { start, size: packed.len() as u64, content, more });
        progress(part.bytes(tree));
        Ok(())
    })?;
    let (file, chunks) = chunks.finish().context("cannot write a temporary file")?;
    index.chunks = chunks;
    index.pages = pages.0;
    ensure!(
        index.text().len() <= LIMIT,
        "the payload is too large: its index would exceed {LIMIT} bytes, which is enough for about 10 GiB"
    );
    Ok(Payload { index, file })
}

impl Parts<'_> {
    fn below(&mut self, path: &mut Vec<u8>, directory: Id) {
        let tree = self.tree;
        for (name, &id) in tree.entries(directory).into_iter().flatten() {
            let parent = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            self.entry(path, id);
            self.below(path, id);
            path.truncate(parent);
        }
    }

    fn entry(&mut self, path: &[u8], id: Id) {
        self.index.entries += 1;
        if self.first.contains_key(&id) {
            self.links.push((path.into(), id));
            return;
        }
        self.count_attributes(id);
        self.index.inodes += 1;
        let mut size = 4 * BLOCK as u64;
        match &self.tree.inode(id).kind {
            Kind::Directory(_) => return self.directories.push((path.into(), id)),
            Kind::File(contents) => {
                let bytes = contents.len();
                self.index.bytes += bytes;
                self.index.largest = self.index.largest.max(bytes);
                size = size.saturating_add(bytes);
            }
            Kind::Symlink(_) | Kind::Character(..) | Kind::Block(..) | Kind::Fifo | Kind::Socket => {}
        }
        self.first.insert(id, path.into());
        if size > FRAME {
            return self.pieces(path, id);
        }
        self.filled += size;
        if self.filled > FRAME {
            self.files.push(Vec::new());
            self.filled = size;
        }
        if let Some(part) = self.files.last_mut() {
            part.push((path.into(), id));
        }
    }

    fn pieces(&mut self, path: &[u8], id: Id) {
        let size = contents(self.tree, id).map_or(0, Contents::len);
        self.large.push(Part::Header(path.into(), id));
        let piece = |number| {
            let from = number * FRAME;
            Part::Piece { path: path.into(), id, from, length: FRAME.min(size - from) }
        };
        self.large.extend((0..size.div_ceil(FRAME)).map(piece));
    }

    fn count_attributes(&mut self, id: Id) {
        let each = |(name, value): (&Vec<u8>, &Vec<u8>)| name.len() as u64 + value.len() as u64 + XATTR;
        self.index.xattrs += self.tree.inode(id).attributes.xattrs.iter().map(each).sum::<u64>();
    }
}

fn contents(tree: &Tree, id: Id) -> Option<&Contents> {
    if let Kind::File(contents) = &tree.inode(id).kind { Some(contents) } else { None }
}

impl Part {
    /// The zstd window. A small one is enough for headers, and `/init` reads the first frame a second time
    /// when memory is shortest.
    fn window(&self, tree: &Tree) -> u32 {
        match self {
            Part::Entries { entries, last } => {
                let headers = *last || entries.iter().all(|(_, id)| tree.entries(*id).is_some());
                if headers { WINDOW_LOG - 2 } else { WINDOW_LOG }
            }
            Part::Header(..) => WINDOW_LOG - 2,
            Part::Piece { .. } => WINDOW_LOG,
        }
    }

    /// Bytes of file contents.
    fn bytes(&self, tree: &Tree) -> u64 {
        match self {
            Part::Entries { last: true, .. } | Part::Header(..) => 0,
            Part::Entries { entries, .. } => {
                entries.iter().filter_map(|(_, id)| contents(tree, *id)).map(Contents::len).sum()
            }
            Part::Piece { length, .. } => *length,
        }
    }

    fn archive(&self, tree: &Tree, first: &HashMap<Id, Box<[u8]>>, measure: &mut Measure) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Part::Entries { entries, last } => {
                for (path, id) in entries {
                    let link = if *last { first.get(id).map(|path| &**path) } else { None };
                    bytes.append(&mut header(path, tree.inode(*id), link));
                    if *last {
                        continue;
                    }
                    if let Some(contents) = contents(tree, *id) {
                        let start = bytes.len();
                        copy(path, contents, 0, contents.len(), &mut bytes)?;
                        measure.add(&bytes[start..])?;
                        pad(&mut bytes);
                    } else if let Kind::Symlink(target) = &tree.inode(*id).kind
                        && target.len() > SHORT_SYMLINK
                    {
                        measure.add(target)?;
                    }
                }
                if *last {
                    // Two blocks of zeros end the archive.
                    bytes.resize(bytes.len() + 2 * BLOCK, 0);
                }
            }
            Part::Header(path, id) => bytes = header(path, tree.inode(*id), None),
            Part::Piece { path, id, from, length } => {
                if let Some(contents) = contents(tree, *id) {
                    copy(path, contents, *from, *length, &mut bytes)?;
                    measure.add(&bytes)?;
                    pad(&mut bytes);
                }
            }
        }
        Ok(bytes)
    }
}

/// Appends `length` bytes of a file.
fn copy(path: &[u8], contents: &Contents, from: u64, length: u64, to: &mut Vec<u8>) -> Result<()> {
    let reader = contents.open_at(from).with_context(|| format!("cannot read {}", shown(path)))?;
    let copied =
        io::copy(&mut reader.take(length), to).with_context(|| format!("cannot pack {}", shown(path)))?;
    let missing = length - copied;
    ensure!(missing == 0, "{}: {missing} bytes are missing: did the file shrink?", shown(path));
    Ok(())
}

/// One zstd frame with its content size in the header.
fn compress(archive: &[u8], level: i32, window: u32) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::new(Vec::new(), level)?;
    encoder.set_parameter(CParameter::WindowLog(window))?;
    encoder.include_checksum(false)?;
    encoder.include_contentsize(true)?;
    encoder.set_pledged_src_size(Some(archive.len() as u64))?;
    encoder.write_all(archive)?;
    encoder.finish()
}
