//! The tree that the kernel creates from the members, in their order.

use std::collections::HashMap;

use crate::newc::Header;
use crate::tree::path::split;
use crate::tree::{Attributes, Contents, Entries, Id, Inode, Kind, Tree};

/// A member whose directory does not exist yet. The kernel drops it silently.
#[derive(Debug)]
pub(crate) struct Lost;

/// The tree, and the inodes with hard links of the current archive.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) tree: Tree,
    links: HashMap<(u32, u32, u32, u32), Id>,
}

impl Default for Placed {
    fn default() -> Placed {
        let root = Attributes { permissions: 0o755, ..Attributes::default() };
        Placed { tree: Tree::new(root), links: HashMap::new() }
    }
}

impl Placed {
    /// Forgets the hard links: they do not reach across archives.
    pub(crate) fn new_archive(&mut self) {
        self.links.clear();
    }

    /// Whether the member is one more name of an inode that an earlier member has created.
    pub(crate) fn is_hard_link(&self, header: &Header) -> bool {
        linkable(header) && self.links.contains_key(&key(header))
    }

    /// Puts a member where the kernel would.
    pub(crate) fn place(&mut self, header: &Header) -> Result<Id, Lost> {
        let name = &header.name[..];
        let (parent, last) = split(name);
        let attributes = Attributes {
            permissions: header.mode & 0o7777,
            uid: header.uid,
            gid: header.gid,
            mtime: header.mtime,
            ..Attributes::default()
        };
        if matches!(last, b"" | b"." | b"..") {
            let id = self.tree.resolve(name).ok_or(Lost)?;
            self.tree.inode_mut(id).attributes = attributes;
            return Ok(id);
        }
        let parent = self.tree.resolve(parent).filter(|id| self.tree.entries(*id).is_some());
        let parent = parent.ok_or(Lost)?;
        if linkable(header)
            && let Some(&id) = self.links.get(&key(header))
        {
            self.tree.link(parent, last, id);
            return Ok(id);
        }
        let existing = self.tree.child(parent, last);
        if header.is_dir()
            && let Some(id) = existing.filter(|id| self.tree.entries(*id).is_some())
        {
            self.tree.inode_mut(id).attributes = attributes;
            return Ok(id);
        }
        let id = self.tree.add(Inode { attributes, kind: kind(header) });
        self.tree.link(parent, last, id);
        if linkable(header) {
            self.links.insert(key(header), id);
        }
        Ok(id)
    }
}

/// The kernel compares inode number, device and type (`find_link`).
fn key(header: &Header) -> (u32, u32, u32, u32) {
    (header.devmajor, header.devminor, header.ino, header.file_type())
}

fn linkable(header: &Header) -> bool {
    header.nlink > 1 && !header.is_dir() && !header.is_symlink()
}

fn kind(header: &Header) -> Kind {
    match header.file_type() {
        0o040_000 => Kind::Directory(Entries::new()),
        0o120_000 => Kind::Symlink(Box::default()),
        0o020_000 => Kind::Character(header.rdevmajor, header.rdevminor),
        0o060_000 => Kind::Block(header.rdevmajor, header.rdevminor),
        0o010_000 => Kind::Fifo,
        0o140_000 => Kind::Socket,
        _ => Kind::File(Contents::Size(u64::from(header.filesize))),
    }
}
