//! Everything there is to know about a tree, in one map from path to [`Entry`].
//!
//! The walk works by descriptors and holds a bounded number of them, so neither depth nor path length has a limit.
//! It stays on one mount when given a view ([`crate::namespace::view`]), opens only directories and regular files, and
//! changes no access time there. The order of the map is that of the bytes of the paths.
mod content;
mod diff;
mod entry;
mod walk;

pub use content::Content;
pub use diff::{Atime, Holes, Rules, difference};
pub use entry::{Entry, Kind};
pub use walk::{Snapshot, snapshot};
