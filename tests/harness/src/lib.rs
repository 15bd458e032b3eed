//! What the chores (`xtask`), the boots (`tests/vm`) and the benchmarks (`bench`) share.
//!
//! It builds the static programs, installs Debian packages, downloads kernels and runs QEMU.
//! Everything that it makes lies below `target/`.

pub mod arch;
pub mod build;
pub mod command;
pub mod container;
pub mod debian;
pub mod emulator;
pub mod kernels;
pub mod place;
pub mod qemu;
pub mod sources;
pub mod suite;
pub mod tool;
