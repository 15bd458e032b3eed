//! The C compiler for the one part of the init that is written in C: the decoder of zstd.
//!
//! It is compiled against the headers of whatever C library the compiler comes with, and linked with musl: it uses `malloc`,
//! `free`, `memcpy` and their like, which are the same in both.

use super::{Arch, triple};
use crate::debian::{self, Tool};
use anyhow::Result;

/// What tells the build where the compiler is.
pub(super) fn compiler(arch: Arch) -> Result<Vec<(String, String)>> {
    let (triple, _) = triple(arch)?;
    let triple = triple.replace('-', "_");
    let here = std::env::consts::ARCH == arch.name();
    let (program, package): Tool = match arch {
        _ if here => ("cc", "gcc"),
        Arch::Aarch64 => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        Arch::I686 => ("i686-linux-gnu-gcc", "gcc-i686-linux-gnu"),
        Arch::X86_64 | Arch::All => ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu"),
    };
    debian::need(&[(program, package)])?;
    // What glibc's headers add of their own accord is not in musl.
    let flags = "-U_FORTIFY_SOURCE -fno-stack-protector -ffunction-sections -fdata-sections";
    Ok(vec![(format!("CC_{triple}"), program.into()), (format!("CFLAGS_{triple}"), flags.into())])
}
