//! Everything that can be told of a tree from outside, to compare it before and after a move.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// One entry. Two names of one inode have the same `first`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    links: u64,
    device: u64,
    size: u64,
    mtime: (i64, i64),
    first: PathBuf,
    target: Option<PathBuf>,
    contents: Option<Vec<u8>>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    flags: u32,
}

/// A tree at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Snapshot {
    /// Looks at everything below `root` and at itself, links not followed.
    pub(super) fn take(root: &Path) -> Result<Snapshot> {
        let mut snapshot = Snapshot { entries: BTreeMap::new() };
        let mut firsts = HashMap::new();
        let mut waiting = vec![root.to_path_buf()];
        while let Some(path) = waiting.pop() {
            let look = || format!("cannot look at {}", path.display());
            let metadata = fs::symlink_metadata(&path).with_context(look)?;
            if metadata.is_dir() {
                for entry in fs::read_dir(&path).with_context(look)? {
                    waiting.push(entry.with_context(look)?.path());
                }
            }
            let key = (metadata.dev(), metadata.ino());
            let first = firsts.entry(key).or_insert_with(|| path.clone()).clone();
            let entry = entry(&path, &metadata, first).with_context(look)?;
            snapshot.entries.insert(path, entry);
        }
        // Which name is seen first depends on the order of the directory: take the least.
        let mut least: HashMap<PathBuf, PathBuf> = HashMap::new();
        for (path, entry) in &snapshot.entries {
            least.entry(entry.first.clone()).or_insert_with(|| path.clone());
        }
        for entry in snapshot.entries.values_mut() {
            entry.first.clone_from(&least[&entry.first]);
        }
        Ok(snapshot)
    }

    /// How many entries there are.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What differs, one line for each entry.
    #[must_use]
    pub(super) fn differences(&self, after: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, before) in &self.entries {
            match after.entries.get(path) {
                None => lines.push(format!("{}: gone", path.display())),
                Some(after) if after != before => {
                    lines.push(format!("{}: {}", path.display(), before.changes(after)));
                }
                Some(_) => {}
            }
        }
        let new = after.entries.keys().filter(|path| !self.entries.contains_key(*path));
        lines.extend(new.map(|path| format!("{}: new", path.display())));
        lines
    }
}

impl Entry {
    /// Which attributes are different.
    fn changes(&self, after: &Entry) -> String {
        let pairs = [
            ("mode", self.mode == after.mode),
            ("owner", self.owner == after.owner),
            ("number of links", self.links == after.links),
            ("hard links", self.first == after.first),
            ("device", self.device == after.device),
            ("size", self.size == after.size),
            ("time", self.mtime == after.mtime),
            ("target", self.target == after.target),
            ("contents", self.contents == after.contents),
            ("extended attributes", self.xattrs == after.xattrs),
            ("inode flags", self.flags == after.flags),
        ];
        let changed: Vec<_> = pairs.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
        changed.join(", ")
    }
}

fn entry(path: &Path, metadata: &Metadata, first: PathBuf) -> Result<Entry> {
    let file_type = metadata.file_type();
    let opened = (file_type.is_file() || file_type.is_dir()).then(|| File::open(path)).transpose()?;
    let mut contents = None;
    if let Some(file) = opened.as_ref().filter(|_| file_type.is_file()) {
        let mut hash = Hash(Sha256::new());
        io::copy(&mut &*file, &mut hash)?;
        contents = Some(hash.0.finalize().to_vec());
    }
    let device = file_type.is_char_device() || file_type.is_block_device();
    Ok(Entry {
        mode: metadata.mode(),
        owner: (metadata.uid(), metadata.gid()),
        // A directory's links and size are the file system's own affair.
        links: if file_type.is_dir() { 0 } else { metadata.nlink() },
        size: if file_type.is_dir() { 0 } else { metadata.size() },
        device: if device { metadata.rdev() } else { 0 },
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        first,
        target: file_type.is_symlink().then(|| fs::read_link(path)).transpose()?,
        contents,
        xattrs: xattrs(path)?,
        flags: opened.and_then(|file| rustix::fs::ioctl_getflags(&file).ok()).map_or(0, |flags| flags.bits()),
    })
}

fn xattrs(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut buffer = vec![0; 64 << 10];
    let names = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(len) => buffer[..len].to_vec(),
        Err(rustix::io::Errno::NOTSUP) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let len = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut buffer[..])?;
        found.insert(name.to_vec(), buffer[..len].to_vec());
    }
    Ok(found)
}

struct Hash(Sha256);

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
