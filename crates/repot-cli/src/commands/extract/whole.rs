//! Writes a root that was read as a whole.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::target::Target;
use super::yard::Yard;
use crate::report::name::shown;
use crate::source::exclude::Pattern;
use crate::source::initramfs;
use crate::source::limits::Weight;
use crate::survey::file::ImageFile;
use crate::tree::{Id, Kind, Tree};

/// Extracts what fits one of the patterns, or everything if there are none.
pub(super) fn extract(image: &ImageFile, yard: &Yard, patterns: &[String]) -> Result<Target> {
    let file = image.flat(yard.path())?;
    let read = initramfs::whole(&file, image.name(), yard.path(), &mut Weight::default())?;
    let patterns: Vec<_> = patterns.iter().map(|pattern| Pattern::new(pattern)).collect();
    let list = all(&read.tree, &patterns);
    if list.is_empty() && !patterns.is_empty() {
        bail!("{}: nothing fits the patterns", image.name());
    }
    for (path, _) in list.iter().filter(|(path, _)| !path.contains(&b'/')) {
        yard.reserve(path)?;
    }
    let mut target = yard.target()?;
    target.notes.append(read.notes);
    target.directory(b".", &read.tree.inode(Tree::ROOT).attributes)?;
    write(&mut target, &read.tree, &list)?;
    Ok(target)
}

/// The entries of a tree that fit one of the patterns, with the directories above them.
pub(super) fn all(tree: &Tree, patterns: &[Pattern]) -> Vec<(Vec<u8>, Id)> {
    let mut list = Vec::new();
    collect(tree, patterns, &mut Vec::new(), Tree::ROOT, &mut list);
    list
}

fn collect(
    tree: &Tree,
    patterns: &[Pattern],
    path: &mut Vec<u8>,
    directory: Id,
    list: &mut Vec<(Vec<u8>, Id)>,
) {
    for (name, &id) in tree.entries(directory).into_iter().flatten() {
        let (parent, start) = (path.len(), list.len());
        path.extend_from_slice(if path.is_empty() { b"" } else { b"/" });
        path.extend_from_slice(name);
        list.push((path.clone(), id));
        let wanted = patterns.is_empty() || patterns.iter().any(|pattern| pattern.covers(path));
        // What is below something wanted is wanted.
        collect(tree, if wanted { &[] } else { patterns }, path, id, list);
        if !wanted && list.len() == start + 1 {
            list.truncate(start);
        }
        path.truncate(parent);
    }
}

/// Writes these entries of a tree.
pub(super) fn write(target: &mut Target, tree: &Tree, list: &[(Vec<u8>, Id)]) -> Result<()> {
    let mut first: HashMap<Id, &[u8]> = HashMap::new();
    for (path, id) in list {
        let inode = tree.inode(*id);
        if !matches!(inode.kind, Kind::Directory(_))
            && let Some(first) = first.insert(*id, path)
        {
            target.link(path, first)?;
            continue;
        }
        let attributes = &inode.attributes;
        match &inode.kind {
            Kind::Directory(_) => target.directory(path, attributes)?,
            Kind::File(contents) => {
                let mut data = contents.open().with_context(|| format!("cannot read {}", shown(path)))?;
                let mut data = std::io::Read::take(&mut data, contents.len());
                target.file(path, attributes, &mut data)?;
            }
            Kind::Symlink(to) => target.symlink(path, to, attributes)?,
            Kind::Character(major, minor) | Kind::Block(major, minor) => {
                target.node(path, inode.file_type(), (*major, *minor), attributes)?;
            }
            Kind::Fifo | Kind::Socket => target.node(path, inode.file_type(), (0, 0), attributes)?,
        }
    }
    Ok(())
}
