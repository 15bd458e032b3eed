//! Trees to be moved: what is in them ([`Plant`]), and the ones the tests use.
//!
//! A tree is a list of plants, parents before children, which [`plant`] makes real below a directory. The list is what
//! proptest generates and shrinks, so a failing tree is printed as something a person can read.
mod hostile;
mod large;
mod plant;
mod random;

use std::ffi::CString;
use std::fmt;

pub use hostile::{hostile, one_of_each};
pub use large::{crowd, shaft};
pub use plant::plant;
pub use random::trees;

/// The two kinds of file system the kernel unpacks an initramfs into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)]
pub enum Fs {
    Ramfs,
    Tmpfs,
}

impl Fs {
    /// Both.
    pub const ALL: [Fs; 2] = [Fs::Ramfs, Fs::Tmpfs];

    /// Its name to the kernel.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fs::Ramfs => "ramfs",
            Fs::Tmpfs => "tmpfs",
        }
    }
}

/// One entry of a tree to be.
#[derive(Clone, PartialEq)]
pub struct Plant {
    /// Path relative to the top; empty for the top itself.
    pub path: Vec<u8>,
    /// What it is.
    pub what: What,
    /// Its attributes; those of a hard link are its first name's.
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

/// A piece of a file that is not a hole. What the bytes are follows from the position.
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
    /// Left out on ramfs, which has none.
    pub xattrs: Vec<(CString, Vec<u8>)>,
    /// `chattr` flags; left out on ramfs.
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

/// What [`crate::stage::Stage::install`] puts into a tree and the boot reads before the move: their access times may change.
pub const READ_AT_BOOT: [&str; 3] = ["init", "sbin/init", "etc/repot.conf"];
