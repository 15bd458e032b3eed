//! Collects the extended attributes of a tree in an attribute manifest, `.repot-xattrs-*`.

use std::collections::HashSet;

use repot::manifest;

use twox_hash::XxHash64;

use crate::newc::NAME_MAX;
use crate::tree::{Attributes, Contents, Id, Inode, Kind, Tree};

/// Adds the manifest of a tree to it, unless no entry has attributes. The name depends on the contents: in an
/// image of several segments, no manifest replaces another one.
pub(crate) fn add(tree: &mut Tree, mtime: u32) {
    let Some(text) = contents(tree) else { return };
    let name = manifest::name(hash(&text), mtime);
    let attributes = Attributes { permissions: 0o400, mtime, ..Attributes::default() };
    let id = tree.add(Inode { attributes, kind: Kind::File(Contents::Bytes(text.into())) });
    tree.link(Tree::ROOT, name.as_bytes(), id);
}

fn hash(text: &[u8]) -> u32 {
    let [.., a, b, c, d] = XxHash64::oneshot(0, text).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Removes the manifests of the image that a root was unpacked from.
pub(crate) fn remove(tree: &mut Tree) {
    for name in names(tree) {
        tree.unlink(Tree::ROOT, &name);
    }
}

/// The names of the manifests in a tree.
pub(crate) fn names(tree: &Tree) -> Vec<Box<[u8]>> {
    let entries = tree.entries(Tree::ROOT).into_iter().flatten();
    entries.filter(|(name, _)| manifest::is_name(name)).map(|(name, _)| name.clone()).collect()
}

/// The list for a tree, unless no entry has attributes.
fn contents(tree: &Tree) -> Option<Vec<u8>> {
    let mut list = List { tree, seen: HashSet::new(), text: Vec::new() };
    list.entry(b".", Tree::ROOT);
    below(tree, &mut Vec::new(), Tree::ROOT, &mut |path, id| list.entry(path, id));
    (!list.text.is_empty()).then_some(list.text)
}

/// Warnings about attributes that the kernel will refuse. It allows `user.` attributes on files and
/// directories only (xattr(7)), and since Linux 7.1 on sockets.
#[must_use]
pub fn refused(tree: &Tree) -> Vec<String> {
    let (mut links, mut sockets) = (Vec::new(), Vec::new());
    below(tree, &mut Vec::new(), Tree::ROOT, &mut |path, id| {
        let inode = tree.inode(id);
        let list = match inode.kind {
            Kind::Directory(_) | Kind::File(_) => return,
            Kind::Socket => &mut sockets,
            Kind::Symlink(_) | Kind::Character(..) | Kind::Block(..) | Kind::Fifo => &mut links,
        };
        if inode.attributes.xattrs.keys().any(|name| name.starts_with(b"user.")) {
            list.push(String::from_utf8_lossy(path).into_owned());
        }
    });
    let warning = |list: &[String], why| {
        let more = if list.len() > 1 { format!(" and {} more", list.len() - 1) } else { String::new() };
        list.first().map(|first| format!("user.* attributes of /{first}{more} will be lost: {why}"))
    };
    [
        warning(&links, "the kernel allows none on symbolic links, devices and pipes"),
        warning(&sockets, "kernels before 7.1 allow none on sockets"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Calls `visit` with everything below a directory, parents first.
fn below(tree: &Tree, path: &mut Vec<u8>, directory: Id, visit: &mut dyn FnMut(&[u8], Id)) {
    for (name, &id) in tree.entries(directory).into_iter().flatten() {
        let parent = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        visit(path, id);
        // The archive writer reports longer paths as an error.
        if path.len() <= NAME_MAX {
            below(tree, path, id, visit);
        }
        path.truncate(parent);
    }
}

/// The stamp of an inode, as the init will find it.
pub(crate) fn stamp(inode: &Inode) -> String {
    let size = match &inode.kind {
        Kind::File(contents) => contents.len(),
        Kind::Symlink(target) => target.len() as u64,
        Kind::Directory(_) | Kind::Character(..) | Kind::Block(..) | Kind::Fifo | Kind::Socket => 0,
    };
    manifest::stamp(inode.mode(), size, inode.attributes.mtime.into())
}

struct List<'a> {
    tree: &'a Tree,
    /// Inodes that are listed already, under their first name.
    seen: HashSet<Id>,
    text: Vec<u8>,
}

impl List<'_> {
    fn entry(&mut self, path: &[u8], id: Id) {
        let inode = self.tree.inode(id);
        let xattrs = &inode.attributes.xattrs;
        if xattrs.is_empty() || !self.seen.insert(id) {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(b'\n');
        }
        manifest::write_path(&mut self.text, path);
        manifest::write_stamp(&mut self.text, &stamp(inode));
        for (name, value) in xattrs {
            manifest::write_attribute(&mut self.text, name, value);
        }
    }
}
