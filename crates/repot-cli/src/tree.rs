//! A root file system in memory: names, attributes, and where to read the contents of each file.
//!
//! Every source fills a tree, edits change it, and it is written as an archive. Inodes are in one table, and
//! directories map names to their numbers. So hard links are names with the same number.

pub mod access;
pub mod beneath;
mod contents;
mod edit;
pub(crate) mod path;
mod resolve;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use self::beneath::Beneath;
use crate::report::name::shown;

/// The number of an inode in its tree. The root is [`Tree::ROOT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(usize);

/// The entries of a directory, sorted by the bytes of their names.
pub type Entries = BTreeMap<Box<[u8]>, Id>;

/// A root file system.
#[derive(Debug)]
pub struct Tree {
    inodes: Vec<Inode>,
}

/// One inode.
#[derive(Debug, Clone)]
pub struct Inode {
    /// Owner, permissions, times and so on.
    pub attributes: Attributes,
    /// Its kind.
    pub kind: Kind,
}

/// The attributes that every inode has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits including set-user-ID, set-group-ID and sticky, without the file type.
    pub permissions: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: u32,
    /// Nanoseconds of that time, 0 if unknown. newc cannot hold them.
    pub nanoseconds: u32,
    /// Extended attributes by name, including ACLs and capabilities.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The kind of an inode, with its data.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory and its entries.
    Directory(Entries),
    /// A regular file.
    File(Contents),
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A character device: major and minor number.
    Character(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Where the bytes of a regular file are.
#[derive(Debug, Clone)]
pub enum Contents {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// At this path of a directory on disk.
    Disk(Arc<Beneath>, Box<[u8]>, Seen),
    /// In a file: offset and length.
    Range(Arc<File>, u64, u64),
    /// In a file, without its holes.
    Sparse(Arc<Sparse>),
    /// Not available. Only the size in bytes is known.
    Size(u64),
}

/// A sparse file in an archive.
#[derive(Debug)]
pub struct Sparse {
    /// The archive.
    pub file: Arc<File>,
    /// Bytes of the whole file.
    pub size: u64,
    /// The data, in order.
    pub extents: Vec<Extent>,
}

/// A piece of data of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it is in the sparse file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Where it is in the archive.
    pub position: u64,
}

/// The state of a file when its directory was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its size in bytes.
    pub size: u64,
    /// Its inode number.
    pub inode: u64,
    /// Its modification time in seconds and nanoseconds.
    pub modified: (i64, i64),
}

impl Contents {
    /// The size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Contents::Bytes(bytes) => bytes.len() as u64,
            Contents::Disk(_, _, Seen { size: len, .. })
            | Contents::Range(_, _, len)
            | Contents::Size(len) => *len,
            Contents::Sparse(sparse) => sparse.size,
        }
    }

    /// Whether the file has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Kind {
    /// What it is, for messages.
    #[must_use]
    pub fn noun(&self) -> String {
        match self {
            Kind::Directory(_) => "a directory".into(),
            Kind::File(contents) if contents.is_empty() => "an empty file".into(),
            Kind::File(_) => "a file".into(),
            Kind::Symlink(target) => format!("a symbolic link to {}", shown(target)),
            Kind::Character(major, minor) => format!("the character device {major}:{minor}"),
            Kind::Block(major, minor) => format!("the block device {major}:{minor}"),
            Kind::Fifo => "a named pipe".into(),
            Kind::Socket => "a socket".into(),
        }
    }
}

impl Inode {
    /// File type and permissions as in `st_mode`.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.file_type() | self.attributes.permissions & 0o7777
    }

    /// The type bits of the mode.
    #[must_use]
    pub fn file_type(&self) -> u32 {
        match self.kind {
            Kind::Directory(_) => 0o040_000,
            Kind::File(_) => 0o100_000,
            Kind::Symlink(_) => 0o120_000,
            Kind::Character(..) => 0o020_000,
            Kind::Block(..) => 0o060_000,
            Kind::Fifo => 0o010_000,
            Kind::Socket => 0o140_000,
        }
    }
}

impl Tree {
    /// The number of the root directory.
    pub const ROOT: Id = Id(0);

    /// A tree with an empty root directory.
    #[must_use]
    pub fn new(attributes: Attributes) -> Tree {
        Tree { inodes: vec![Inode { attributes, kind: Kind::Directory(Entries::new()) }] }
    }

    /// The inode with this number.
    #[must_use]
    pub fn inode(&self, id: Id) -> &Inode {
        &self.inodes[id.0]
    }

    /// The inode with this number, for changing it.
    pub fn inode_mut(&mut self, id: Id) -> &mut Inode {
        &mut self.inodes[id.0]
    }

    /// The entries of a directory; `None` if it is not a directory.
    #[must_use]
    pub fn entries(&self, id: Id) -> Option<&Entries> {
        if let Kind::Directory(entries) = &self.inode(id).kind { Some(entries) } else { None }
    }
}
