//! The tool for the person who builds images: what the `repot` command is made of.
//!
//! A source (directory, tar, OCI image) becomes a [`tree::Tree`] in memory, without the contents of its files; the tree
//! is edited (`/init`, device nodes, configuration) and written as a newc archive. [`newc`] alone knows the bytes.

pub mod beneath;
pub mod newc;
pub mod source;
pub mod tree;
