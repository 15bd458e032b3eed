//! The C compiler for the one part of the init that is written in C: the zstd decoder.
//!
//! The decoder calls `malloc`, `free`, `memcpy` and a few more functions of a C library. So it is compiled
//! against the few declarations in `tests/harness/include`, whatever headers the machine has, and linked with
//! musl.

use super::{Arch, triple};
use crate::command::read;
use crate::debian;
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// The variables that tell the `cc` crate which compiler and flags to use.
pub(super) fn variables(arch: Arch) -> Result<Vec<(String, String)>> {
    let (triple, _) = triple(arch)?;
    let triple = triple.replace('-', "_");
    let here = std::env::consts::ARCH == arch.name();
    let (program, package) = if here { ("cc", "gcc") } else { arch.c_compiler() };
    debian::need(&[(program, package)])?;
    let own = read(Command::new(program).arg("-print-file-name=include"))?;
    let declared = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let flags = format!("-nostdinc -I{} -isystem {} -fno-stack-protector", declared.display(), own.trim());
    Ok(vec![(format!("CC_{triple}"), program.into()), (format!("CFLAGS_{triple}"), flags)])
}
