//! The tree that the kernel creates from the members, in their order.

use std::collections::HashMap;

use crate::newc::Header;
use crate::tree::path::split;
use crate::tree::{Attributes, Contents, Entries, Id, Inode, Kind, Tree};

/// Why the kernel drops a member silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Its directory does not exist yet.
    Early,
    /// A directory with entries has its name.
    Directory,
    /// It is one more name of an inode whose first name does not exist, or is a directory by now.
    Link,
}

impl Lost {
    /// In words, behind the name.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Lost::Early => "it comes before its directory",
            Lost::Directory => "a directory with entries has its name",
            Lost::Link => "the first name of its inode was lost or replaced",
        }
    }
}

/// Where a member went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A new inode, or another name of one.
    New(Id),
    /// Into an existing inode, which keeps its other names.
    Existing(Id),
    /// A directory took the place of a symbolic link.
    Unlinked(Id),
}

impl Place {
    pub(crate) fn id(self) -> Id {
        let (Place::New(id) | Place::Existing(id) | Place::Unlinked(id)) = self;
        id
    }
}

/// The tree, and the first names of the inodes with hard links of the current archive.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) tree: Tree,
    /// The kernel remembers names, not inodes, and also those of members that it could not create.
    links: HashMap<Key, Vec<u8>>,
    /// Names of inodes beyond the first.
    names: HashMap<Id, u64>,
    /// Whether a member for the root directory was there.
    root: bool,
}

impl Default for Placed {
    fn default() -> Placed {
        let root = Attributes { permissions: 0o755, ..Attributes::default() };
        Placed { tree: Tree::new(root), links: HashMap::new(), names: HashMap::new(), root: false }
    }
}

impl Placed {
    /// Forgets the hard links: they do not reach across `TRAILER!!!`. They do reach across segments without
    /// one.
    pub(crate) fn trailer(&mut self) {
        self.links.clear();
    }

    /// Whether the member is one more name of an inode that an earlier member has created.
    pub(crate) fn is_hard_link(&self, header: &Header) -> bool {
        linkable(header) && self.links.contains_key(&key(header))
    }

    /// Whether an inode has several names.
    pub(crate) fn is_shared(&self, id: Id) -> bool {
        self.names.get(&id).is_some_and(|names| *names > 0)
    }

    /// An inode has lost a name.
    fn forget(&mut self, id: Option<Id>) {
        if let Some(names) = id.and_then(|id| self.names.get_mut(&id)) {
            *names = names.saturating_sub(1);
        }
    }

    /// Puts a member where the kernel would.
    pub(crate) fn place(&mut self, header: &Header) -> Result<Place, Lost> {
        let name = &header.name[..];
        let (parent, last) = split(name);
        let attributes = attributes(header);
        if matches!(last, b"" | b"." | b"..") {
            let id = self.tree.resolve(name).ok_or(Lost::Early)?;
            let again = id != Tree::ROOT || std::mem::replace(&mut self.root, true);
            self.attributes(id, attributes, again);
            return Ok(Place::New(id));
        }
        if linkable(header) {
            if let Some(first) = self.links.get(&key(header)).cloned() {
                return self.link(parent, last, &first, header, attributes);
            }
            self.links.insert(key(header), name.to_vec());
        }
        let parent = self.directory(parent).ok_or(Lost::Early)?;
        let existing = self.tree.child(parent, last);
        if !header.is_dir() && existing.is_some_and(|id| self.has_entries(id)) {
            return Err(Lost::Directory);
        }
        // The kernel removes what has another type, and a symbolic link always. The rest it writes to in
        // place.
        if !header.is_symlink()
            && let Some(id) = existing.filter(|id| self.tree.inode(*id).file_type() == header.file_type())
        {
            self.attributes(id, attributes, header.is_dir());
            if header.is_file() {
                self.tree.inode_mut(id).kind = kind(header);
            }
            return Ok(Place::Existing(id));
        }
        let symlink = existing.is_some_and(|id| matches!(self.tree.inode(id).kind, Kind::Symlink(_)));
        let id = self.tree.add(Inode { attributes, kind: kind(header) });
        let replaced = self.tree.link(parent, last, id);
        self.forget(replaced);
        Ok(if symlink && header.is_dir() { Place::Unlinked(id) } else { Place::New(id) })
    }

    /// Links a member to what has the `first` name of its inode by now. The kernel removes the new name
    /// before that, and changes the owner and the mode of files each time.
    fn link(
        &mut self,
        parent: &[u8],
        last: &[u8],
        first: &[u8],
        header: &Header,
        attributes: Attributes,
    ) -> Result<Place, Lost> {
        let parent = self.directory(parent).ok_or(Lost::Early)?;
        if self.tree.child(parent, last).is_some_and(|id| self.has_entries(id)) {
            return Err(Lost::Directory);
        }
        let removed = self.tree.unlink(parent, last);
        self.forget(removed);
        let (directory, name) = split(first);
        let id = self.directory(directory).and_then(|directory| self.tree.child(directory, name));
        let id = id.filter(|id| self.tree.entries(*id).is_none()).ok_or(Lost::Link)?;
        self.tree.link(parent, last, id);
        *self.names.entry(id).or_default() += 1;
        let inode = self.tree.inode_mut(id);
        if header.is_file() && matches!(inode.kind, Kind::File(_)) {
            inode.attributes = attributes;
        }
        Ok(Place::New(id))
    }

    /// Gives an inode other attributes. The kernel sets the times of directories at the end, those of the
    /// latest member first, so a directory that comes `again` keeps its time (`dir_utime`).
    fn attributes(&mut self, id: Id, attributes: Attributes, again: bool) {
        let inode = self.tree.inode_mut(id);
        let mtime = if again { inode.attributes.mtime } else { attributes.mtime };
        inode.attributes = Attributes { mtime, ..attributes };
    }

    fn directory(&self, path: &[u8]) -> Option<Id> {
        self.tree.resolve(path).filter(|id| self.tree.entries(*id).is_some())
    }

    fn has_entries(&self, id: Id) -> bool {
        self.tree.entries(id).is_some_and(|entries| !entries.is_empty())
    }
}

/// The attributes that a member has.
pub(crate) fn attributes(header: &Header) -> Attributes {
    Attributes {
        permissions: header.mode & 0o7777,
        uid: header.uid,
        gid: header.gid,
        mtime: header.mtime,
        ..Attributes::default()
    }
}

/// What makes members one inode.
pub(crate) type Key = (u32, u32, u32, u32);

/// The kernel compares inode number, device and type (`find_link`).
pub(crate) fn key(header: &Header) -> Key {
    (header.devmajor, header.devminor, header.ino, header.file_type())
}

/// Whether the kernel looks for a hard link.
pub(crate) fn linkable(header: &Header) -> bool {
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
