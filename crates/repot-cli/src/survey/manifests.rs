//! The attribute manifests of an image: which entries get extended attributes in the end.

use std::collections::{BTreeMap, BTreeSet};

use repot::manifest::{self, Line};

use crate::image::xattr_list::stamp;
use crate::tree::Tree;

/// The paths of each manifest, with their stamps.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    lists: BTreeMap<Vec<u8>, Vec<Listed>>,
}

#[derive(Debug)]
struct Listed {
    path: Vec<u8>,
    stamp: Option<Vec<u8>>,
}

impl Manifests {
    /// Reads a manifest, which replaces an earlier one of the same name.
    pub(super) fn read(&mut self, name: &[u8], text: &[u8]) {
        let mut list: Vec<Listed> = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            match manifest::line(line) {
                Some(Line::Path(path)) => list.push(Listed { path, stamp: None }),
                Some(Line::Attribute(name, value)) if name == manifest::STAMP => {
                    if let Some(last) = list.last_mut() {
                        last.stamp = Some(value);
                    }
                }
                Some(Line::Attribute(..) | Line::Blank) | None => {}
            }
        }
        self.lists.insert(name.to_vec(), list);
    }

    /// Whether the image has one besides `.repot-xattrs`, which every repot reads.
    pub(super) fn several(&self) -> bool {
        self.lists.keys().any(|name| name != manifest::NAME.as_bytes())
    }

    /// How many entries of the tree get attributes.
    pub(super) fn entries(&self, tree: &Tree) -> u64 {
        let listed = self.lists.values().flatten();
        let kept = listed.filter(|listed| {
            let Some(stamped) = &listed.stamp else { return true };
            let found = tree.find(&listed.path).map(|id| stamp(tree.inode(id)));
            found.is_some_and(|found| manifest::same_stamp(stamped, found.as_bytes(), true))
        });
        kept.map(|listed| &listed.path).collect::<BTreeSet<_>>().len() as u64
    }
}
