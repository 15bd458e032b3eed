//! Trees for the tests: what is in them ([`Plant`]), and the code that creates them.
//!
//! A tree is a list of plants, parents before children, and [`plant`] creates it below a directory: in the
//! namespaces of the sandbox, and on disk for images. proptest generates and shrinks such lists, so a failing
//! tree is readable.

mod create;
mod hostile;
mod large;

pub use create::plant;
pub use hostile::{acl, capability, dir, hostile, hostile_archive, one_of_each};
pub use large::{crowd, shaft};

use std::ffi::CString;
use std::fmt;

/// The two file systems that the kernel unpacks an initramfs into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)]
pub enum Fs {
    Ramfs,
    Tmpfs,
}

impl Fs {
    /// Both.
    pub const ALL: [Fs; 2] = [Fs::Ramfs, Fs::Tmpfs];

    /// The file system type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fs::Ramfs => "ramfs",
            Fs::Tmpfs => "tmpfs",
        }
    }
}

/// One entry of a tree that is to be created.
#[derive(Clone, PartialEq)]
pub struct Plant {
    /// Path relative to the top; empty for the top itself.
    pub path: Vec<u8>,
    /// What it is.
    pub what: What,
    /// Its attributes. A hard link has those of the first path.
    pub meta: Meta,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum What {
    Dir,
    File { len: u64, data: Vec<Data> },
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
    HardLink(Vec<u8>),
}

/// A part of a file that is not a hole. The bytes follow from the position.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Data {
    pub at: u64,
    pub len: u64,
}

/// The attributes of an entry.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    /// Extended attributes. ramfs has none, so they are skipped there.
    pub xattrs: Vec<(CString, Vec<u8>)>,
    /// Inode flags (`chattr`). Skipped on ramfs too.
    pub flags: u32,
}

impl Default for Meta {
    fn default() -> Meta {
        Meta {
            mode: 0o644,
            uid: 0,
            gid: 0,
            atime: (1_600_000_000, 1),
            mtime: (1_500_000_000, 999_999_999),
            xattrs: vec![],
            flags: 0,
        }
    }
}

impl fmt::Debug for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}: {:?} {:?}", self.path.escape_ascii(), self.what, self.meta)
    }
}
