//! One entry of a tree: every attribute that a move has to keep.

use crate::content::Content;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The type of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

impl Kind {
    pub(crate) fn of(mode: u32) -> Option<Kind> {
        Some(match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::Unknown => return None,
        })
    }
}

/// One entry.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The type.
    pub kind: Kind,
    /// Permission bits, set-user-ID, set-group-ID and sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a file or of a symlink's target. 0 for all others, where file systems disagree.
    pub size: u64,
    /// The number of a device, as (major, minor).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rdev: (u32, u32),
    /// Target of a symlink.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "escaped")]
    pub target: Vec<u8>,
    /// What a file contains. Hard links share it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "shared")]
    pub content: Option<Arc<Content>>,
    /// Last access, in seconds and nanoseconds.
    pub atime: (i64, u32),
    /// Last change of the data, in seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes of every namespace, ACLs and capabilities among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "attributes")]
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Inode flags (`chattr`), 0 where the file system has none.
    pub flags: u32,
    /// Number of hard links. 1 for directories.
    pub nlink: u32,
    /// The lowest path of the same inode, if it has several.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "path")]
    pub linked: Option<Vec<u8>>,
    /// Space that a file takes, in units of 512 bytes. 0 for all others.
    pub blocks: u64,
}

fn is_zero(number: &(u32, u32)) -> bool {
    *number == (0, 0)
}

/// Bytes as escaped text.
mod escaped {
    use crate::text::{escape, unescape};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(bytes))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        unescape(&text).ok_or_else(|| D::Error::custom("wrong escape"))
    }
}

/// Bytes as hexadecimal digits.
pub(crate) mod hex {
    use crate::text::{hex, unhex};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(bytes))
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        unhex(&text).ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}

/// A path as escaped text.
mod path {
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        super::escaped::serialize(path.as_deref().unwrap_or_default(), serializer)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        super::escaped::deserialize(deserializer).map(Some)
    }
}

/// Content without the sharing.
mod shared {
    use crate::content::Content;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub(super) fn serialize<S: Serializer>(
        content: &Option<Arc<Content>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        content.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
    ) -> Result<Option<Arc<Content>>, D::Error> {
        Ok(Option::<Content>::deserialize(deserializer)?.map(Arc::new))
    }
}

/// A map from escaped name to value in hexadecimal digits.
mod attributes {
    use crate::text::{escape, hex, unescape, unhex};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<S: Serializer>(
        attributes: &BTreeMap<Vec<u8>, Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(attributes.iter().map(|(name, value)| (escape(name), hex(value))))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, D::Error> {
        let attributes = BTreeMap::<String, String>::deserialize(deserializer)?;
        let pair = |(name, value): (&String, &String)| Some((unescape(name)?, unhex(value)?));
        attributes.iter().map(|one| pair(one).ok_or_else(|| D::Error::custom("bad attribute"))).collect()
    }
}
