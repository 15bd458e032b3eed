//! What is compared: every entry with its attributes, and the pages of files that hold data.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use repot_cli::source::directory;
use repot_cli::tree::{self, Contents, Id, Inode, Kind};
use repot_snapshot::data_ranges;

/// Bytes of a page, in which holes are counted.
const PAGE: u64 = 4096;
/// Files of at most this size are read. Larger ones are all holes, and their pages are compared.
const READ: u64 = 256 << 20;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    what: String,
    attributes: String,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether the archive implies the directory, so that its attributes are up to the program.
    implied: bool,
    /// The first path of the same inode.
    first: Vec<u8>,
    /// The pages with data, of a file with holes.
    pages: Option<BTreeSet<u64>>,
}

/// Entries by path.
pub(crate) type Tree = BTreeMap<Vec<u8>, Entry>;

/// The entries of a tree that `pack` has read.
pub(crate) fn ours(tree: &tree::Tree) -> Result<Tree> {
    let mut entries = Tree::new();
    below(tree, &mut Vec::new(), tree::Tree::ROOT, &mut BTreeMap::new(), &mut entries, None)?;
    Ok(entries)
}

/// The entries of a directory on disk.
pub(crate) fn extracted(directory: &Path) -> Result<Tree> {
    let scan = directory::scan(directory)?;
    let mut entries = Tree::new();
    below(
        &scan.tree,
        &mut Vec::new(),
        tree::Tree::ROOT,
        &mut BTreeMap::new(),
        &mut entries,
        Some(directory),
    )?;
    Ok(entries)
}

fn below(
    tree: &tree::Tree,
    path: &mut Vec<u8>,
    at: Id,
    first: &mut BTreeMap<Id, Vec<u8>>,
    entries: &mut Tree,
    disk: Option<&Path>,
) -> Result<()> {
    for (name, &id) in tree.entries(at).into_iter().flatten() {
        let parent = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let inode = tree.inode(id);
        let shown = || path.escape_ascii().to_string();
        let first_path = first.entry(id).or_insert_with(|| path.clone()).clone();
        let entry = Entry { first: first_path, ..entry(inode, path, disk).with_context(shown)? };
        entries.insert(path.clone(), entry);
        below(tree, path, id, first, entries, disk)?;
        path.truncate(parent);
    }
    Ok(())
}

fn entry(inode: &Inode, path: &[u8], disk: Option<&Path>) -> Result<Entry> {
    let a = &inode.attributes;
    let (what, pages) = if let Kind::File(contents) = &inode.kind {
        (file(contents)?, pages(contents, path, disk)?)
    } else {
        (inode.kind.noun(), None)
    };
    // On most file systems links of either owner have all permissions.
    let mode = if matches!(inode.kind, Kind::Symlink(_)) { 0 } else { inode.mode() };
    Ok(Entry {
        what,
        attributes: format!(
            "mode {mode:o}, owner {}:{}, time {}.{:09}",
            a.uid, a.gid, a.mtime, a.nanoseconds
        ),
        xattrs: a.xattrs.clone(),
        implied: disk.is_none() && inode.mode() == 0o040_755 && (a.mtime, a.uid, a.gid) == (0, 0, 0),
        first: Vec::new(),
        pages,
    })
}

/// The size of a file and a sum of its bytes.
fn file(contents: &Contents) -> Result<String> {
    let size = contents.len();
    if size > READ {
        return Ok(format!("a file of {size} bytes"));
    }
    let sum = contents
        .read()?
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    Ok(format!("a file of {size} bytes, sum {sum:016x}"))
}

/// The pages with data, if the file has holes.
fn pages(contents: &Contents, path: &[u8], disk: Option<&Path>) -> Result<Option<BTreeSet<u64>>> {
    use std::os::unix::ffi::OsStrExt;

    let ranges: Vec<(u64, u64)> = match (contents, disk) {
        (Contents::Sparse(sparse), _) => {
            sparse.extents.iter().map(|extent| (extent.offset, extent.offset + extent.length)).collect()
        }
        (_, Some(directory)) => {
            let file = File::open(directory.join(std::ffi::OsStr::from_bytes(path)))?;
            data_ranges(&file, contents.len())?
        }
        _ => return Ok(None),
    };
    let pages: BTreeSet<u64> =
        ranges.iter().flat_map(|(start, end)| start / PAGE..end.div_ceil(PAGE)).collect();
    let holes = (pages.len() as u64) < contents.len().div_ceil(PAGE);
    Ok(holes.then_some(pages))
}

/// Removes the ACLs of all entries.
pub(crate) fn without_acls(tree: &mut Tree) {
    for entry in tree.values_mut() {
        entry.xattrs.retain(|name, _| !name.starts_with(b"system.posix_acl_"));
    }
}

/// The first difference, in words.
pub(crate) fn difference(ours: &Tree, theirs: &Tree) -> Option<String> {
    let shown = |path: &[u8]| path.escape_ascii().to_string();
    for (path, entry) in ours {
        let Some(other) = theirs.get(path) else { return Some(format!("{} is only ours", shown(path))) };
        let one = |what: &str, ours: &str, theirs: &str| {
            (ours != theirs).then(|| format!("{}: {what}: {ours}, but {theirs}", shown(path)))
        };
        let attributes =
            (!entry.implied).then(|| one("attributes", &entry.attributes, &other.attributes)).flatten();
        let found = one("kind", &entry.what, &other.what)
            .or(attributes)
            .or_else(|| one("hard link", &shown(&entry.first), &shown(&other.first)))
            .or_else(|| one("xattrs", &format!("{:?}", entry.xattrs), &format!("{:?}", other.xattrs)))
            .or_else(|| holes(entry, other).map(|why| format!("{}: {why}", shown(path))));
        if found.is_some() {
            return found;
        }
    }
    theirs.keys().find(|path| !ours.contains_key(*path)).map(|path| format!("{} is only theirs", shown(path)))
}

/// A sparse file has data where the other has. A program may turn zeros into holes.
fn holes(ours: &Entry, theirs: &Entry) -> Option<String> {
    let (ours, theirs) = match (&ours.pages, &theirs.pages) {
        (Some(ours), Some(theirs)) => (ours, theirs),
        (Some(_), None) => return Some("its holes are only ours".into()),
        (None, Some(_)) => return Some("its holes are only theirs".into()),
        (None, None) => return None,
    };
    theirs
        .iter()
        .find(|page| !ours.contains(page))
        .map(|page| format!("page {page} is a hole, but not theirs"))
}
