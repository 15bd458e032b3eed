//! Changing a tree: adding, replacing and removing entries by name or by path.

use super::{Attributes, Entries, Id, Inode, Kind, Tree};

impl Tree {
    /// How many inodes there are or were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Never: there is a root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    /// A new inode, not yet in any directory.
    pub fn add(&mut self, inode: Inode) -> Id {
        self.inodes.push(inode);
        Id(self.inodes.len() - 1)
    }

    /// Gives `id` the name `name` in the directory, and returns what had that name.
    pub fn link(&mut self, directory: Id, name: &[u8], id: Id) -> Option<Id> {
        let Kind::Directory(entries) = &mut self.inode_mut(directory).kind else { return None };
        entries.insert(name.into(), id)
    }

    /// Takes a name out of a directory, with all that is below it.
    pub fn unlink(&mut self, directory: Id, name: &[u8]) -> Option<Id> {
        let Kind::Directory(entries) = &mut self.inode_mut(directory).kind else { return None };
        entries.remove(name)
    }

    /// Calls `visit` with every inode below the root that has a name, once.
    pub fn each_inode(&self, visit: &mut dyn FnMut(Id)) {
        let mut seen = vec![false; self.inodes.len()];
        let mut waiting = vec![Tree::ROOT];
        while let Some(directory) = waiting.pop() {
            for &id in self.entries(directory).into_iter().flat_map(|entries| entries.values()) {
                if !std::mem::replace(&mut seen[id.0], true) {
                    visit(id);
                    waiting.push(id);
                }
            }
        }
    }

    /// Makes no time later than `latest`, and returns the newest there is.
    pub fn clamp_times(&mut self, latest: u32) -> u32 {
        let mut newest = 0;
        for inode in &mut self.inodes {
            let attributes = &mut inode.attributes;
            if attributes.mtime >= latest {
                (attributes.mtime, attributes.nanoseconds) = (latest, 0);
            }
            newest = newest.max(attributes.mtime);
        }
        newest
    }

    /// The entry of that name in a directory.
    #[must_use]
    pub fn child(&self, directory: Id, name: &[u8]) -> Option<Id> {
        self.entries(directory)?.get(name).copied()
    }

    /// The inode at a path of plain names, without following symbolic links.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<Id> {
        components(path).try_fold(Tree::ROOT, |directory, name| self.child(directory, name))
    }

    /// The directory of that name in `parent`: what is there if it is one, else a new one with `attributes`.
    pub fn directory(&mut self, parent: Id, name: &[u8], attributes: &Attributes) -> Id {
        if let Some(id) = self.child(parent, name)
            && self.entries(id).is_some()
        {
            return id;
        }
        let id = self.add(Inode { attributes: attributes.clone(), kind: Kind::Directory(Entries::new()) });
        self.link(parent, name, id);
        id
    }
}

/// The names of a path, without empty ones and `.`.
pub(crate) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}
