//! Compares two trees, entry by entry.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};

use anyhow::{Context, Result};
use serde::Serialize;

use super::Differences;
use crate::cli::Aspect;
use crate::report::name::shown;
use crate::report::{mode, time};
use crate::tree::{Contents, Id, Kind, Tree};

/// An entry that is in both, with differences.
#[derive(Debug, Serialize)]
pub(super) struct Changed {
    pub(super) name: String,
    /// What differs, for people.
    pub(super) what: Vec<String>,
}

/// Compares everything below the roots, and the roots themselves.
pub(super) fn trees(a: &Tree, b: &Tree, ignore: &[Aspect], found: &mut Differences) -> Result<()> {
    let mut walk = Walk { a, b, ignore, first_a: HashMap::new(), first_b: HashMap::new(), found };
    walk.both(b".", Tree::ROOT, Tree::ROOT)?;
    walk.directory(&mut Vec::new(), Some(Tree::ROOT), Some(Tree::ROOT))
}

struct Walk<'a> {
    a: &'a Tree,
    b: &'a Tree,
    ignore: &'a [Aspect],
    /// The first name of each inode.
    first_a: HashMap<Id, Vec<u8>>,
    first_b: HashMap<Id, Vec<u8>>,
    found: &'a mut Differences,
}

impl Walk<'_> {
    fn directory(&mut self, path: &mut Vec<u8>, a: Option<Id>, b: Option<Id>) -> Result<()> {
        let (tree_a, tree_b) = (self.a, self.b);
        let a = a.and_then(|id| tree_a.entries(id));
        let b = b.and_then(|id| tree_b.entries(id));
        let names: BTreeSet<_> = a.into_iter().chain(b).flat_map(|entries| entries.keys()).collect();
        for name in names {
            let parent = path.len();
            path.extend_from_slice(if path.is_empty() { b"" } else { b"/" });
            path.extend_from_slice(name);
            let one = a.and_then(|entries| entries.get(name)).copied();
            let other = b.and_then(|entries| entries.get(name)).copied();
            match (one, other) {
                (Some(one), Some(other)) => self.both(path, one, other)?,
                (Some(_), None) => self.found.removed.push(text(path)),
                (None, _) => self.found.added.push(text(path)),
            }
            self.directory(path, one, other)?;
            path.truncate(parent);
        }
        Ok(())
    }

    /// Compares an entry that is in both.
    fn both(&mut self, path: &[u8], a: Id, b: Id) -> Result<()> {
        let (one, other) = (self.a.inode(a), self.b.inode(b));
        let mut what = Vec::new();
        let first_a = self.first_a.entry(a).or_insert_with(|| path.to_vec()).clone();
        let first_b = self.first_b.entry(b).or_insert_with(|| path.to_vec()).clone();
        if first_a != first_b && !matches!(one.kind, Kind::Symlink(_)) {
            let of = |first: &[u8]| if first == path { "none".into() } else { shown(first) };
            what.push(format!("hard link {} -> {}", of(&first_a), of(&first_b)));
        }
        match (&one.kind, &other.kind) {
            (Kind::File(old), Kind::File(new)) => {
                what.extend(contents(old, new).with_context(|| format!("cannot compare {}", shown(path)))?);
            }
            (Kind::Symlink(old), Kind::Symlink(new)) if old != new => {
                what.push(format!("target {} -> {}", shown(old), shown(new)));
            }
            (Kind::Character(..) | Kind::Block(..), Kind::Character(..) | Kind::Block(..))
                if one.kind.noun() != other.kind.noun() =>
            {
                what.push(format!("{} -> {}", one.kind.noun(), other.kind.noun()));
            }
            _ if one.file_type() != other.file_type() => {
                what.push(format!("{} -> {}", mode::kind(one.mode()), mode::kind(other.mode())));
            }
            _ => {}
        }
        let wanted = |aspect| !self.ignore.contains(&aspect);
        let (old, new) = (&one.attributes, &other.attributes);
        // The mode of a symbolic link means nothing.
        let link = matches!((&one.kind, &other.kind), (Kind::Symlink(_), Kind::Symlink(_)));
        if wanted(Aspect::Mode) && !link && old.permissions != new.permissions {
            what.push(format!("mode {:04o} -> {:04o}", old.permissions, new.permissions));
        }
        if wanted(Aspect::Owner) && (old.uid, old.gid) != (new.uid, new.gid) {
            what.push(format!("owner {}:{} -> {}:{}", old.uid, old.gid, new.uid, new.gid));
        }
        // An initramfs holds no nanoseconds.
        let nanoseconds = (old.nanoseconds, new.nanoseconds);
        let moment = old.mtime != new.mtime
            || nanoseconds.0 != nanoseconds.1 && nanoseconds.0 > 0 && nanoseconds.1 > 0;
        if wanted(Aspect::Time) && moment {
            let (before, after) = (time::utc(old.mtime), time::utc(new.mtime));
            let seconds = i64::from(new.mtime) - i64::from(old.mtime);
            what.push(match before == after {
                true => format!("time {before}, {seconds:+} s"),
                false => format!("time {before} -> {after}"),
            });
        }
        if wanted(Aspect::Xattrs) && old.xattrs != new.xattrs {
            let names: BTreeSet<_> = old.xattrs.keys().chain(new.xattrs.keys()).collect();
            let differs = |name: &&&Vec<u8>| old.xattrs.get(**name) != new.xattrs.get(**name);
            let names: Vec<_> = names.iter().filter(differs).map(|name| shown(name)).collect();
            what.push(format!("attributes {}", names.join(" ")));
        }
        if !what.is_empty() {
            self.found.changed.push(Changed { name: text(path), what });
        }
        Ok(())
    }
}

/// What differs in the contents of two files.
pub(super) fn contents(a: &Contents, b: &Contents) -> io::Result<Option<String>> {
    if a.len() != b.len() {
        return Ok(Some(format!("size {} -> {}", a.len(), b.len())));
    }
    let (mut one, mut other) = (a.open()?.take(a.len()), b.open()?.take(b.len()));
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut at = 0;
    loop {
        let got = fill(&mut one, &mut left)?;
        let and = fill(&mut other, &mut right)?;
        let same = left[..got].iter().zip(&right[..and]).position(|(one, other)| one != other);
        if let Some(byte) = same {
            return Ok(Some(format!("contents from byte {}", at + byte as u64)));
        }
        if got != and {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file has changed while it was read"));
        }
        if got == 0 {
            return Ok(None);
        }
        at += got as u64;
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A name for people and JSON: bytes that are no text are escaped.
fn text(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_string(),
        _ => path.escape_ascii().to_string(),
    }
}
