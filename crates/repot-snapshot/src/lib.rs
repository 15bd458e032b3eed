//! Every attribute of a directory tree, and what differs between two trees.
//!
//! [`snapshot`] walks a tree and returns a map from path to [`Entry`]. [`difference`] compares two of them.
//!
//! The walk opens entries by descriptor and name, and keeps only a few descriptors open, so neither the depth
//! of the tree nor the length of a path is limited. It stays on one mount if `top` is a clone of that mount.
//! It opens only directories and regular files, does not read holes (on ramfs that would fill them), and
//! changes no access time. It needs no `/proc` and no `/dev`.

mod content;
mod difference;
mod entry;
#[cfg(feature = "plant")]
pub mod plant;
mod sys;
pub mod text;
mod walk;

pub use content::{Content, data_ranges};
pub use difference::{Atime, Holes, Rules, difference};
pub use entry::{Entry, Kind};
pub use walk::{Snapshot, snapshot};

/// Writes and reads a snapshot with serde, for `#[serde(with = "repot_snapshot::json")]`.
pub mod json {
    use super::{Entry, Snapshot, text};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeMap;

    /// Writes a map from escaped path to entry.
    ///
    /// # Errors
    /// What the serializer returns.
    pub fn serialize<S: Serializer>(snapshot: &Snapshot, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(snapshot.iter().map(|(path, entry)| (text::escape(path), entry)))
    }

    /// Reads it back. The checksums of single pages are not part of it.
    ///
    /// # Errors
    /// What the deserializer returns, or a path that is not escaped correctly.
    pub fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Snapshot, D::Error> {
        let entries = BTreeMap::<String, Entry>::deserialize(deserializer)?;
        let unescape =
            |path: &str| text::unescape(path).ok_or_else(|| D::Error::custom(format!("bad path: {path}")));
        entries.into_iter().map(|(path, entry)| Ok((unescape(&path)?, entry))).collect()
    }
}
