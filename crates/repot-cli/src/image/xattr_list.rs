//! `.repot-xattrs`: the extended attributes that newc has no room for, in the format of `getfattr --dump`.

use std::collections::HashSet;

use crate::newc::NAME_MAX;
use crate::tree::{Id, Kind, Tree};

/// Its name, in the root directory.
pub const NAME: &[u8] = b".repot-xattrs";

/// The manifest of a tree; nothing when no entry has attributes.
#[must_use]
pub fn contents(tree: &Tree) -> Option<Vec<u8>> {
    let mut manifest = Manifest { tree, seen: HashSet::new(), text: Vec::new() };
    manifest.entry(b".", Tree::ROOT);
    below(tree, &mut Vec::new(), Tree::ROOT, &mut |path, id| manifest.entry(path, id));
    (!manifest.text.is_empty()).then_some(manifest.text)
}

/// What of a tree's attributes no kernel will take: users may have some on files and directories alone (xattr(7)), and from Linux 7.1
/// on on sockets.
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
    let told = |list: &[String], why| {
        let more = if list.len() > 1 { format!(" and {} more", list.len() - 1) } else { String::new() };
        list.first().map(|first| format!("attributes user.* of /{first}{more} will be left out: {why}"))
    };
    [
        told(&links, "no kernel takes them on symbolic links, devices and pipes"),
        told(&sockets, "kernels before 7.1 do not take them on sockets"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Calls `visit` with everything below a directory, parents before what is in them.
fn below(tree: &Tree, path: &mut Vec<u8>, directory: Id, visit: &mut dyn FnMut(&[u8], Id)) {
    for (name, &id) in tree.entries(directory).into_iter().flatten() {
        let parent = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        visit(path, id);
        // What is longer cannot be written, and how deep it goes is for the archive to say.
        if path.len() <= NAME_MAX {
            below(tree, path, id, visit);
        }
        path.truncate(parent);
    }
}

struct Manifest<'a> {
    tree: &'a Tree,
    /// Inodes with attributes that were listed: one of several names is enough.
    seen: HashSet<Id>,
    text: Vec<u8>,
}

impl Manifest<'_> {
    fn entry(&mut self, path: &[u8], id: Id) {
        let xattrs = &self.tree.inode(id).attributes.xattrs;
        if xattrs.is_empty() || !self.seen.insert(id) {
            return;
        }
        if !self.text.is_empty() {
            self.text.push(b'\n');
        }
        self.text.extend_from_slice(b"# file: ");
        escape(path, b"\\\n\r", &mut self.text);
        self.text.push(b'\n');
        for (name, value) in xattrs {
            escape(name, b"\\\n\r=", &mut self.text);
            self.text.extend_from_slice(b"=0x");
            for byte in value {
                self.text.extend_from_slice(format!("{byte:02x}").as_bytes());
            }
            self.text.push(b'\n');
        }
    }
}

fn escape(bytes: &[u8], special: &[u8], text: &mut Vec<u8>) {
    for &byte in bytes {
        if special.contains(&byte) {
            text.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        } else {
            text.push(byte);
        }
    }
}
