//! `.repot-xattrs`: the extended attributes that newc has no room for, in the format of `getfattr --dump`.

use std::collections::HashSet;

use crate::newc::NAME_MAX;
use crate::tree::{Id, Tree};

/// Its name, in the root directory.
pub const NAME: &[u8] = b".repot-xattrs";

/// The manifest of a tree; nothing when no entry has attributes.
#[must_use]
pub fn contents(tree: &Tree) -> Option<Vec<u8>> {
    let mut manifest = Manifest { tree, seen: HashSet::new(), text: Vec::new() };
    manifest.entry(b".", Tree::ROOT);
    manifest.below(&mut Vec::new(), Tree::ROOT);
    (!manifest.text.is_empty()).then_some(manifest.text)
}

struct Manifest<'a> {
    tree: &'a Tree,
    /// Inodes with attributes that were listed: one of several names is enough.
    seen: HashSet<Id>,
    text: Vec<u8>,
}

impl Manifest<'_> {
    fn below(&mut self, path: &mut Vec<u8>, directory: Id) {
        let tree = self.tree;
        for (name, &id) in tree.entries(directory).into_iter().flatten() {
            let parent = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            self.entry(path, id);
            // What is longer cannot be written, and how deep it goes is for the archive to say.
            if path.len() <= NAME_MAX {
                self.below(path, id);
            }
            path.truncate(parent);
        }
    }

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
