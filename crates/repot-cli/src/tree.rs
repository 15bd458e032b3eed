//! A root file system in memory: names, attributes, and where each file's contents are to be read from.
//!
//! Every source fills one, every edit is made on one, and one is written as an archive. Inodes live in one
//! table and directories map names to it, so a hard link is two names for one number, and no directory can be
//! linked into a cycle.

pub mod beneath;
mod contents;
mod edit;
mod resolve;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use self::beneath::Beneath;

/// A number of an inode in its tree. The root is [`Tree::ROOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(usize);

/// A directory's entries, in the order of their bytes.
pub type Entries = BTreeMap<Box<[u8]>, Id>;

/// A file system, from its root down.
#[derive(Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
}

/// One file, directory, link or node.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Owner, permissions, time.
    pub attributes: Attributes,
    /// What it is.
    pub kind: Kind,
}

/// What every inode has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-user-id, set-group-id and sticky; no type.
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Nanoseconds behind that, where they are known; newc has no room for them.
    pub nanoseconds: u32,
    /// Extended attributes, ACLs and capabilities included, by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The kind of an inode, with what only that kind has.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory and what is in it.
    Directory(Entries),
    /// A regular file.
    File(Contents),
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

/// Where a regular file's bytes are.
#[derive(Debug, Clone)]
pub enum Contents {
    /// Here.
    Bytes(Arc<[u8]>),
    /// In a directory on disk, at this path.
    Disk(Arc<Beneath>, Box<[u8]>, Seen),
    /// In a file, from this offset on.
    Range(Arc<File>, u64, u64),
    /// Nowhere that we can read again: only the size is known.
    Size(u64),
}

/// A file as it was when its directory was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its size in bytes.
    pub size: u64,
    /// Its inode.
    pub inode: u64,
    /// When it was written to, in seconds and nanoseconds.
    pub modified: (i64, i64),
}

impl Contents {
    /// The file's size.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::Disk(_, _, Seen { size: len, .. })
            | Contents::Range(_, _, len)
            | Contents::Size(len) => *len,
        }
    }

    /// Whether the file has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inode {
    /// Type and permissions as in `st_mode`.
    #[must_use]
    pub fn mode(&self) -> u32 {
        let file_type = match self.kind {
            Kind::Directory(_) => 0o040_000,
            Kind::File(_) => 0o100_000,
            Kind::Symlink(_) => 0o120_000,
            Kind::Character(..) => 0o020_000,
            Kind::Block(..) => 0o060_000,
            Kind::Fifo => 0o010_000,
            Kind::Socket => 0o140_000,
        };
        file_type | self.attributes.permissions & 0o7777
    }
}

impl Tree {
    /// The root directory's number.
    pub const ROOT: Id = Id(0);

    /// A root directory with nothing in it.
    #[must_use]
    pub fn new(attributes: Attributes) -> Tree {
        Tree { inodes: vec![Inode { attributes, kind: Kind::Directory(Entries::new()) }] }
    }

    /// The inode with this number.
    #[must_use]
    pub fn inode(&self, id: Id) -> &Inode {
        &self.inodes[id.0]
    }

    /// The inode with this number, to change it.
    pub fn inode_mut(&mut self, id: Id) -> &mut Inode {
        &mut self.inodes[id.0]
    }

    /// The entries of a directory, nothing for anything else.
    #[must_use]
    pub fn entries(&self, id: Id) -> Option<&Entries> {
        if let Kind::Directory(entries) = &self.inode(id).kind { Some(entries) } else { None }
    }
}
