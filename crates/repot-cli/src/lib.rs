//! The tool for the person who builds images: what the `repot` command is made of.
//!
//! A source (directory, tar, OCI image) becomes a [`tree::Tree`] in memory, without the contents of its files; the tree
//! is edited (`/init`, device nodes, configuration) and written as a newc archive. [`newc`] alone knows the bytes.

pub mod beneath;
pub mod codec;
pub mod config;
pub mod elf;
pub mod init_binary;
pub mod manifest;
pub mod marker;
pub mod newc;
pub mod output;
pub mod segments;
pub mod source;
pub mod tree;
