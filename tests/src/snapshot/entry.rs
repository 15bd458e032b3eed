//! One entry of a tree: every attribute a move has to keep.
use std::collections::BTreeMap;
use std::ffi::CString;

use rustix::fs::FileType;

use super::content::Content;

/// What kind of thing an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Char,
    Block,
    Fifo,
    Socket,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Kind {
        match kind {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::Unknown => unreachable!("statx always knows"),
        }
    }
}

/// One entry, with everything that must be the same afterwards.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a file or of a link's target; 0 for the rest, where file systems disagree.
    pub size: u64,
    /// Number of a device, as (major, minor).
    pub rdev: (u32, u32),
    /// Target of a symlink.
    pub target: Vec<u8>,
    /// What a file holds.
    pub content: Option<Content>,
    /// Last access, seconds and nanoseconds.
    pub atime: (i64, u32),
    /// Last change of the data, seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes of every namespace, ACLs and capabilities among them.
    pub xattrs: BTreeMap<CString, Vec<u8>>,
    /// Inode flags (`chattr`), where the file system has them: immutable, append only, no dump, no access time.
    pub flags: u32,
    /// Names this inode has.
    pub nlink: u32,
    /// The lowest path of the same inode where there are several.
    pub linked: Option<Vec<u8>>,
    /// Memory it takes, in units of 512 bytes.
    pub blocks: u64,
}
