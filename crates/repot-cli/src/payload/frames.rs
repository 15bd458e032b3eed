//! The archive in frames: directories first, then what has contents or a single name, then further names.
//!
//! A frame is some MiB of archive and begins at a header, so that each can be unpacked by itself; a larger file has one of its
//! own. Frames are the same for any number of threads.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::{Context, Result, ensure};
use repot::payload::index::{Frame, Index, LIMIT, WINDOW_LOG};
use zstd::stream::Encoder;
use zstd::zstd_safe::CParameter;

use super::Payload;
use super::chunks::Chunks;
use super::ordered::ordered;
use super::tape::{BLOCK, header, pad};
use crate::name::shown;
use crate::tree::{Contents, Id, Kind, Tree};

/// How many bytes of archive a frame has, if no file in it is larger. See docs/payload.md for what was measured.
const FRAME: u64 = 4 << 20;
/// The longest target that tmpfs keeps in the inode (`SHORT_SYMLINK_LEN` less the final zero).
const SHORT_SYMLINK: usize = 127;
/// What an extended attribute takes besides its name and value.
const XATTR: u64 = 32;

/// Entries that become one frame, by their paths.
#[derive(Default)]
struct Part {
    entries: Vec<(Box<[u8]>, Id)>,
    size: u64,
    last: bool,
}

/// What of a tree goes where.
struct Parts<'a> {
    tree: &'a Tree,
    directories: Part,
    files: Vec<Part>,
    /// Further names, with the first.
    links: Vec<(Box<[u8]>, Id)>,
    first: HashMap<Id, Box<[u8]>>,
    index: Index,
}

/// Writes the tree.
pub(super) fn write(tree: &Tree, level: i32, file: File, progress: &mut dyn FnMut(u64)) -> Result<Payload> {
    let mut parts = Parts {
        tree,
        directories: Part::default(),
        files: Vec::new(),
        links: Vec::new(),
        first: HashMap::new(),
        index: Index { inodes: 1, ..Index::default() },
    };
    parts.directories.entries.push((Box::default(), Tree::ROOT));
    parts.count_attributes(Tree::ROOT);
    parts.below(&mut Vec::new(), Tree::ROOT);
    let Parts { directories, files, links, first, mut index, .. } = parts;
    // The largest first, so that the threads of the init come to their end at the same time.
    let (mut large, small): (Vec<_>, Vec<_>) = files.into_iter().partition(|part| part.is_large(tree));
    large.sort_by_key(|part| std::cmp::Reverse(part.size));
    let mut all = vec![directories];
    all.extend(large);
    all.extend(small);
    all.push(Part { entries: links, size: 0, last: true });

    let mut chunks = Chunks::new(file);
    let work = |part: &Part| {
        if part.is_large(tree) {
            return Ok(None);
        }
        let archive = part.archive(tree, &first)?;
        let bytes = compress(&archive, level, part.window(tree)).context("cannot compress")?;
        Ok(Some((bytes, archive.len() as u64)))
    };
    ordered(&all, work, |part, packed| {
        let start = chunks.position();
        let content = match packed {
            Some((bytes, content)) => {
                chunks.write_all(&bytes).context("cannot write a temporary file")?;
                content
            }
            None => part.large(tree, level, &mut chunks)?,
        };
        index.frames.push(Frame { start, size: chunks.position() - start, content });
        let contents =
            |id: &Id| if let Kind::File(contents) = &tree.inode(*id).kind { contents.len() } else { 0 };
        progress(if part.last { 0 } else { part.entries.iter().map(|(_, id)| contents(id)).sum() });
        Ok(())
    })?;
    let (file, chunks) = chunks.finish();
    index.chunks = chunks;
    ensure!(index.text().len() <= LIMIT, "a payload of more than 10 GiB, which no index holds");
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
            Kind::Directory(_) => return self.directories.entries.push((path.into(), id)),
            Kind::File(contents) => {
                let bytes = contents.len();
                self.index.bytes += bytes;
                self.index.pages += bytes.div_ceil(4096);
                self.index.largest = self.index.largest.max(bytes);
                size = size.saturating_add(bytes);
            }
            Kind::Symlink(target) => self.index.pages += u64::from(target.len() > SHORT_SYMLINK),
            Kind::Character(..) | Kind::Block(..) | Kind::Fifo | Kind::Socket => {}
        }
        self.first.insert(id, path.into());
        let fits = self.files.last().is_some_and(|part| part.size.saturating_add(size) <= FRAME);
        if !fits {
            self.files.push(Part::default());
        }
        if let Some(part) = self.files.last_mut() {
            part.entries.push((path.into(), id));
            part.size = part.size.saturating_add(size);
        }
    }

    fn count_attributes(&mut self, id: Id) {
        let each = |(name, value): (&Vec<u8>, &Vec<u8>)| name.len() as u64 + value.len() as u64 + XATTR;
        self.index.xattrs += self.tree.inode(id).attributes.xattrs.iter().map(each).sum::<u64>();
    }
}

impl Part {
    /// The window that unpacking it needs: headers alone do well with little, and the first frame is read once more when memory is
    /// shortest.
    fn window(&self, tree: &Tree) -> u32 {
        let headers = self.last || self.entries.iter().all(|(_, id)| tree.entries(*id).is_some());
        if headers { WINDOW_LOG - 2 } else { WINDOW_LOG }
    }

    /// Whether it is one file that is larger than a frame.
    fn is_large(&self, tree: &Tree) -> bool {
        matches!(&self.entries[..], [(_, id)] if matches!(&tree.inode(*id).kind, Kind::File(contents) if contents.len() > FRAME))
    }

    fn archive(&self, tree: &Tree, first: &HashMap<Id, Box<[u8]>>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (path, id) in &self.entries {
            let inode = tree.inode(*id);
            let link = if self.last { first.get(id).map(|path| &**path) } else { None };
            bytes.append(&mut header(path, inode, link));
            if let (Kind::File(contents), false) = (&inode.kind, self.last) {
                copy(path, contents, &mut bytes)?;
                pad(&mut bytes);
            }
        }
        if self.last {
            // The end of the archive.
            bytes.resize(bytes.len() + 2 * BLOCK, 0);
        }
        Ok(bytes)
    }

    /// A file that is a frame, compressed as it is read.
    fn large(&self, tree: &Tree, level: i32, out: &mut Chunks) -> Result<u64> {
        let [(path, id)] = &self.entries[..] else { return Ok(0) };
        let inode = tree.inode(*id);
        let Kind::File(contents) = &inode.kind else { return Ok(0) };
        let header = header(path, inode, None);
        let size = header.len() as u64 + contents.len().next_multiple_of(BLOCK as u64);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let write = || "cannot write a temporary file";
        let mut encoder = encoder(out, level, WINDOW_LOG, size).with_context(write)?;
        // With threads the frame is another than without, but the same for any number of them.
        encoder.multithread(u32::try_from(threads)?).with_context(write)?;
        encoder.write_all(&header).with_context(write)?;
        copy(path, contents, &mut encoder)?;
        let rest = size - header.len() as u64 - contents.len();
        encoder.write_all(&[0; BLOCK][..usize::try_from(rest)?]).with_context(write)?;
        encoder.finish().with_context(write)?;
        Ok(size)
    }
}

fn copy(path: &[u8], contents: &Contents, to: &mut impl Write) -> Result<()> {
    let from = contents.open().with_context(|| format!("cannot read {}", shown(path)))?;
    let copied = io::copy(&mut from.take(contents.len()), to)
        .with_context(|| format!("cannot pack {}", shown(path)))?;
    let missing = contents.len() - copied;
    ensure!(missing == 0, "{}: ended {missing} bytes early, did it shrink?", shown(path));
    Ok(())
}

fn compress(archive: &[u8], level: i32, window: u32) -> io::Result<Vec<u8>> {
    let mut encoder = encoder(Vec::new(), level, window, archive.len() as u64)?;
    encoder.write_all(archive)?;
    encoder.finish()
}

/// An encoder of a frame whose size is known, and no larger window than the init allows.
fn encoder<W: Write>(out: W, level: i32, window: u32, size: u64) -> io::Result<Encoder<'static, W>> {
    let mut encoder = Encoder::new(out, level)?;
    encoder.set_parameter(CParameter::WindowLog(window))?;
    encoder.include_checksum(false)?;
    encoder.include_contentsize(true)?;
    encoder.set_pledged_src_size(Some(size))?;
    Ok(encoder)
}
