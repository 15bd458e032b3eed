//! The payload of an image: collects its chunks while the image streams by, verifies them, and reads their
//! tree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use repot::payload::DIRECTORY;
use repot::payload::index::{CHUNK_SIZE, Chunk, Index, LIMIT, name};
use sha2::{Digest, Sha256};
use twox_hash::XxHash64;

use super::entries;
use crate::payload::Facts;
use crate::ram::Footprint;
use crate::source::layer::Layer;
use crate::source::limits;
use crate::source::limits::Weight;
use crate::source::tarball::Tarball;
use crate::tree::{Attributes, Id, Kind, Tree};

/// The root that `/init` makes of an image with a payload.
#[derive(Debug)]
pub struct Root {
    /// The payload, and over it the other entries of the image.
    pub tree: Tree,
    /// Entries that are not from the payload, and their inodes in the tree of the image.
    pub outer: HashMap<Id, Id>,
    /// Facts about the payload.
    pub facts: Facts,
    /// The size of the payload alone.
    pub inner: Footprint,
}

/// The members in the directory of the payload.
#[derive(Debug, Default)]
pub struct Spool {
    file: Option<File>,
    length: u64,
    index: Option<Vec<u8>>,
    /// By name, the offset of each chunk in the file, and what the index must contain for it.
    chunks: BTreeMap<Vec<u8>, (u64, Chunk)>,
}

/// The name of a member relative to the directory of the payload, if it is inside.
pub(crate) fn below(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(DIRECTORY.as_bytes())?.strip_prefix(b"/")
}

impl Spool {
    /// Whether the image has no payload.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_none() && self.chunks.is_empty()
    }

    /// Adds a member. It replaces an earlier one of the same name.
    pub(crate) fn member(&mut self, name: &[u8], data: &mut dyn Read) -> Result<()> {
        if name == b"index" {
            let mut text = Vec::new();
            data.take(LIMIT as u64 + 1).read_to_end(&mut text)?;
            self.index = Some(text);
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile().context("cannot create a temporary file")?),
        };
        let (start, mut sum, mut digest) = (self.length, XxHash64::with_seed(0), Sha256::new());
        let mut buffer = vec![0; 64 << 10];
        loop {
            let got = match data.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            sum.write(&buffer[..got]);
            digest.update(&buffer[..got]);
            file.write_all(&buffer[..got]).context("cannot write a temporary file")?;
            self.length += got as u64;
        }
        let chunk = Chunk { size: self.length - start, sum: sum.finish(), digest: digest.finalize().into() };
        self.chunks.insert(name.to_vec(), (start, chunk));
        Ok(())
    }

    /// Verifies everything and reads the tree. An error names the chunk or frame.
    pub(crate) fn open(&self, outer: &Tree) -> Result<Root> {
        self.open_on(outer, 4096)
    }

    /// Does the same, and measures the tree for a machine with pages of this size.
    pub(crate) fn open_on(&self, outer: &Tree, page: u64) -> Result<Root> {
        let text = self.index.as_deref().context("the payload has no index")?;
        ensure!(text.len() <= LIMIT, "the index of the payload has more than {LIMIT} bytes");
        let index = Index::parse(text).map_err(|flaw| anyhow::anyhow!("{DIRECTORY}: {flaw}"))?;
        for (number, chunk) in index.chunks.iter().enumerate() {
            let chunk_name = name(number);
            let found = self.chunks.get(chunk_name.as_bytes());
            let (_, found) =
                found.with_context(|| format!("chunk {chunk_name} of the payload is missing"))?;
            let (size, wanted) = (found.size, chunk.size);
            ensure!(size == wanted, "chunk {chunk_name} of the payload has {size} bytes instead of {wanted}");
            let corrupt = |sum| format!("chunk {chunk_name} of the payload is corrupt: wrong {sum}");
            ensure!(found.digest == chunk.digest, corrupt("SHA-256"));
            ensure!(found.sum == chunk.sum, corrupt("XXH64"));
        }
        if let Some(more) = self.chunks.keys().find(|found| {
            let number = std::str::from_utf8(found).ok().and_then(|text| text.parse::<usize>().ok());
            number.is_none_or(|number| number >= index.chunks.len() || name(number).as_bytes() != *found)
        }) {
            anyhow::bail!("{DIRECTORY}/{} is not in the index of the payload", more.escape_ascii());
        }
        let archive = self.archive(&index)?;
        entries::check(&archive, &index)?;
        let (scratch, mut weight) = (std::env::temp_dir(), Weight::default());
        let tarball = Tarball::open(archive.into(), "the payload", &scratch, &mut weight)?;
        let mut tree = Tree::new(Attributes { permissions: 0o755, ..Attributes::default() });
        tarball.apply(&mut Layer::root(&mut tree, &mut weight))?;
        let facts = Facts::of(&index);
        let inner = Footprint::of(&tree, page);
        let mut root = Root { tree, outer: HashMap::new(), facts, inner };
        // An entry at the real path precedes one whose path goes through a link.
        let mut done = HashSet::new();
        root.lay_through_links(outer, (Tree::ROOT, Tree::ROOT), &[], &mut done);
        root.lay_over(outer, Tree::ROOT, Tree::ROOT, &done);
        Ok(root)
    }

    /// Decompresses every frame on its own, as the init does.
    fn archive(&self, index: &Index) -> Result<File> {
        let mut out = tempfile::tempfile().context("cannot create a temporary file")?;
        let mut total = 0u64;
        for (number, frame) in index.frames.iter().enumerate() {
            let input = Frame { spool: self, index, at: frame.start, end: frame.end() };
            let mut decoder = zstd::stream::read::Decoder::new(BufReader::new(input))?.single_frame();
            decoder.window_log_max(repot::payload::index::WINDOW_LOG)?;
            let copied = io::copy(&mut decoder.take(frame.content.saturating_add(1)), &mut out)
                .with_context(|| format!("frame {number} of the payload is corrupt"))?;
            ensure!(
                copied == frame.content,
                "frame {number} of the payload does not unpack to the {} bytes in the index",
                frame.content
            );
            total += copied;
            ensure!(
                total <= limits::UNPACKED,
                "the payload unpacks to more than {} bytes, the limit",
                limits::UNPACKED
            );
        }
        out.seek(SeekFrom::Start(0)).context("cannot read a temporary file")?;
        Ok(out)
    }
}

impl Root {
    /// Lays directories of the image whose name in the payload is a symbolic link to a directory over that
    /// directory, and adds them to `done`.
    fn lay_through_links(
        &mut self,
        from: &Tree,
        (directory, into): (Id, Id),
        path: &[u8],
        done: &mut HashSet<Id>,
    ) {
        for (name, &id) in from.entries(directory).into_iter().flatten() {
            let (Kind::Directory(_), Some(existing)) = (&from.inode(id).kind, self.tree.child(into, name))
            else {
                continue;
            };
            let path = [path, b"/", name].concat();
            let target = self.tree.resolve(&path).filter(|id| self.tree.entries(*id).is_some());
            match (&self.tree.inode(existing).kind, target) {
                (Kind::Directory(_), _) => self.lay_through_links(from, (id, existing), &path, done),
                (Kind::Symlink(_), Some(target)) => {
                    self.lay_over(from, id, target, &HashSet::new());
                    done.insert(id);
                }
                _ => {}
            }
        }
    }

    /// Lays the other entries of the image over a directory of the payload. Directories are merged, and keep
    /// their attributes from the payload. An empty directory replaces nothing.
    fn lay_over(&mut self, from: &Tree, directory: Id, into: Id, done: &HashSet<Id>) {
        for (name, &id) in from.entries(directory).into_iter().flatten() {
            if directory == Tree::ROOT && **name == *DIRECTORY.as_bytes() || done.contains(&id) {
                continue;
            }
            let inode = from.inode(id);
            let Kind::Directory(entries) = &inode.kind else {
                let copy = self.tree.add(inode.clone());
                self.tree.link(into, name, copy);
                self.outer.insert(copy, id);
                continue;
            };
            if entries.is_empty() && self.tree.child(into, name).is_some() {
                continue;
            }
            let below = self.tree.directory(into, name, &inode.attributes);
            self.lay_over(from, id, below, done);
        }
    }
}

/// Reads the compressed bytes of a frame across chunks.
struct Frame<'a> {
    spool: &'a Spool,
    index: &'a Index,
    at: u64,
    end: u64,
}

impl Read for Frame<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(file) = &self.spool.file else { return Ok(0) };
        let number = usize::try_from(self.at / CHUNK_SIZE).unwrap_or(usize::MAX);
        let known =
            self.index.chunks.get(number).and_then(|_| self.spool.chunks.get(name(number).as_bytes()));
        let Some((start, Chunk { size, .. })) = known else { return Ok(0) };
        let offset = self.at % CHUNK_SIZE;
        let left = (self.end - self.at).min(size.saturating_sub(offset));
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = file.read_at(&mut buffer[..want], start + offset)?;
        self.at += got as u64;
        Ok(got)
    }
}
