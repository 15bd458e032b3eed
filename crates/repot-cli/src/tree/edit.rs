//! Editing a tree: adding, replacing and removing entries.

use super::path::components;
use super::{Attributes, Entries, Id, Inode, Kind, Tree};

impl Tree {
    /// Number of inodes, including removed ones.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inodes.len()
    }

    /// Always false: a tree has a root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inodes.is_empty()
    }

    /// Adds an inode that has no name yet.
    pub fn add(&mut self, inode: Inode) -> Id {
        self.inodes.push(inode);
        Id(self.inodes.len() - 1)
    }

    /// Links `id` as `name` in the directory, and returns the inode that had this name.
    pub fn link(&mut self, directory: Id, name: &[u8], id: Id) -> Option<Id> {
        let Kind::Directory(entries) = &mut self.inode_mut(directory).kind else { return None };
        entries.insert(name.into(), id)
    }

    /// Removes a name from a directory, with everything below it.
    pub fn unlink(&mut self, directory: Id, name: &[u8]) -> Option<Id> {
        let Kind::Directory(entries) = &mut self.inode_mut(directory).kind else { return None };
        entries.remove(name)
    }

    /// Calls `visit` once for every inode below the root that has a name.
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

    /// Replaces times later than `latest` with `latest`, and returns the newest time.
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

    /// Gives everything to one owner and group.
    pub fn give(&mut self, uid: u32, gid: u32) {
        for inode in &mut self.inodes {
            (inode.attributes.uid, inode.attributes.gid) = (uid, gid);
        }
    }

    /// The entry of this name in a directory.
    #[must_use]
    pub fn child(&self, directory: Id, name: &[u8]) -> Option<Id> {
        self.entries(directory)?.get(name).copied()
    }

    /// The inode at a path, without following symbolic links.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<Id> {
        components(path).try_fold(Tree::ROOT, |directory, name| self.child(directory, name))
    }

    /// The directory of this name in `parent`. If there is none, creates one with `attributes`.
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
