//! Splitting a root for a payload: what must exist before the payload is unpacked stays outside.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use repot::payload::DIRECTORY;
use repot::payload::index::name;
use repot::{marker, modules};

use super::{Image, config, xattr_list};
use crate::payload::Payload;
use crate::tree::{Attributes, Contents, Entries, Id, Inode, Kind, Tree};

impl Image {
    /// Splits the image into the tree for the payload and the image around it.
    pub fn split(self) -> Result<(Tree, Image)> {
        let Image { mut tree, mtime, warnings } = self;
        let outer = outer(&mut tree, mtime)?;
        Ok((tree, Image { tree: outer, mtime, warnings }))
    }

    /// Adds the index and the chunks of a payload.
    pub fn add_payload(&mut self, payload: Payload) {
        let Payload { index, file } = payload;
        let attributes = Attributes { permissions: 0o700, ..Attributes::default() };
        let directory = self.tree.directory(Tree::ROOT, DIRECTORY.as_bytes(), &attributes);
        self.add(directory, b"index", Contents::Bytes(index.text().into_bytes().into()));
        let file = Arc::new(file);
        let mut at = 0;
        for (number, chunk) in index.chunks.iter().enumerate() {
            self.add(directory, name(number).as_bytes(), Contents::Range(file.clone(), at, chunk.size));
            at += chunk.size;
        }
    }

    /// Adds a file that only root can read.
    fn add(&mut self, directory: Id, name: &[u8], contents: Contents) {
        let attributes = Attributes { permissions: 0o400, mtime: self.mtime, ..Attributes::default() };
        let id = self.tree.add(Inode { attributes, kind: Kind::File(contents) });
        self.tree.link(directory, name, id);
    }
}

/// Moves out of the root what `/init` needs before it unpacks the payload: itself, its configuration, and
/// the entries that the kernel would otherwise create with other attributes.
fn outer(tree: &mut Tree, mtime: u32) -> Result<Tree> {
    let attributes = tree.inode(Tree::ROOT).attributes.clone();
    let permissions = attributes.archived_permissions();
    let mut outer = Tree::new(Attributes { permissions, xattrs: Default::default(), ..attributes });
    for name in [&b"init"[..], marker::BEGIN.as_bytes()] {
        if let Some(id) = tree.unlink(Tree::ROOT, name) {
            copy(tree, id, &mut outer, Tree::ROOT, name);
        }
    }
    xattr_list::remove(tree);
    if let Some(id) = tree.unlink(Tree::ROOT, modules::DIRECTORY.as_bytes()) {
        copy_whole(tree, id, &mut outer, Tree::ROOT, modules::DIRECTORY.as_bytes());
    }
    tree.unlink(Tree::ROOT, DIRECTORY.as_bytes());
    if tree.find(config::PATH.as_bytes()).is_some() {
        let etc = tree.find(b"etc").context("the root has no /etc")?;
        let into = copy(tree, etc, &mut outer, Tree::ROOT, b"etc");
        // A link would lead into the payload, where /init cannot read yet: the file itself stays outside.
        if let Some(id) = tree.resolve(config::PATH.as_bytes()) {
            copy(tree, id, &mut outer, into, b"repot.conf");
        }
        tree.unlink(etc, b"repot.conf");
    } else if tree.resolve(config::PATH.as_bytes()).is_some() {
        bail!(
            "/etc is a symbolic link, but /init must find /etc/repot.conf before it unpacks the payload: make /etc \
             a directory, or pack without --payload"
        );
    }
    // The kernel creates /dev, /dev/console and /root before it unpacks anything.
    for name in [&b"dev"[..], b"root"] {
        let Some(id) = tree.child(Tree::ROOT, name) else { continue };
        let into = copy(tree, id, &mut outer, Tree::ROOT, name);
        if name == b"dev"
            && let Some(console) = tree.child(id, b"console")
        {
            copy(tree, console, &mut outer, into, b"console");
        }
    }
    xattr_list::add(&mut outer, mtime);
    Ok(outer)
}

/// Copies an entry with everything below it.
fn copy_whole(tree: &Tree, id: Id, to: &mut Tree, into: Id, name: &[u8]) {
    let copied = copy(tree, id, to, into, name);
    for (name, &id) in tree.entries(id).into_iter().flatten() {
        copy_whole(tree, id, to, copied, name);
    }
}

/// Copies one entry. A directory is copied without its entries and extended attributes: both come from the
/// payload.
fn copy(tree: &Tree, id: Id, to: &mut Tree, into: Id, name: &[u8]) -> Id {
    let mut inode = tree.inode(id).clone();
    if matches!(inode.kind, Kind::Directory(_)) {
        inode.kind = Kind::Directory(Entries::new());
        inode.attributes.permissions = inode.attributes.archived_permissions();
        inode.attributes.xattrs.clear();
    }
    let id = to.add(inode);
    to.link(into, name, id);
    id
}
