//! The C compiler for the one part of the init that is written in C: the decoder of zstd.
//!
//! That calls `malloc`, `free`, `memcpy` and their like and nothing else of a C library, so it is compiled against the few
//! declarations in `include`, whatever headers the machine has, and linked with musl.

use super::{Arch, triple};
use crate::command::read;
use crate::debian::{self, Tool};
use crate::place;
use anyhow::Result;
use std::process::Command;

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
    let own = read(Command::new(program).arg("-print-file-name=include"))?;
    let declared = place::checkout().join("xtask/src/dist/include");
    let flags = format!("-nostdinc -I{} -isystem {} -fno-stack-protector", declared.display(), own.trim());
    Ok(vec![(format!("CC_{triple}"), program.into()), (format!("CFLAGS_{triple}"), flags)])
}
