//! The parts of the `repot` command, for people who build images.
//!
//! A root file system flows through these in order:
//!
//! | part | does |
//! |---|---|
//! | [`source`] | reads a directory, a tar archive or a container image into a tree |
//! | [`tree`] | holds names, attributes and the places of file contents in memory |
//! | [`image`] | makes the tree bootable: `/init`, device nodes, configuration |
//! | [`modules`] | collects the kernel modules that `/init` loads |
//! | [`payload`] | splits off what stays compressed until `/init` unpacks it |
//! | [`newc`], [`codec`] | the bytes of an initramfs and its compressions |
//! | [`survey`] | reads an initramfs back, by the kernel's rules |
//! | [`programs`], [`ram`] | answer which init would run, and in how much memory |
//! | [`output`], [`report`] | write the image, and the command's summary |
//!
//! [`commands`] has one file for each command.

// They panic when the reader of a pipe is gone.
#![deny(clippy::print_stdout, clippy::print_stderr)]

/// Writes a line to standard error, as [`report::say`].
macro_rules! say {
    ($($words:tt)*) => { $crate::report::say(format_args!($($words)*)) };
}

pub mod architecture;
pub mod cli;
pub mod codec;
pub mod commands;
pub mod container;
pub mod errors;
pub mod image;
pub mod init_binary;
pub mod modules;
pub mod newc;
pub mod output;
pub mod payload;
pub mod programs;
pub mod ram;
pub mod report;
pub mod source;
pub mod survey;
mod sys;
pub mod tree;
#[doc(hidden)]
pub mod uki;

pub use commands::run;
