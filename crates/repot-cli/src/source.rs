//! Where a root comes from: each source reads one kind of input into a [`Tree`](crate::tree::Tree).

pub mod directory;
pub mod layer;
pub mod limits;
pub mod tarball;
