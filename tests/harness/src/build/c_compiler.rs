//! The C compiler for the parts that are written in C: the zstd decoder of the init, and the libraries of the
//! tool.
//!
//! The decoder calls `malloc`, `free`, `memcpy` and a few more functions of a C library. So it is compiled
//! against the few declarations in `tests/harness/include`, whatever headers the machine has, and linked with
//! musl.

use super::{Arch, musl, triple};
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

/// The same for the tool, whose libraries need a whole C library: the headers of musl.
pub(super) fn whole(arch: Arch) -> Result<Vec<(String, String)>> {
    let (triple, _) = triple(arch)?;
    if !triple.ends_with("musl") {
        return Ok(Vec::new());
    }
    let here = std::env::consts::ARCH == arch.name();
    if here {
        debian::need(&[debian::MUSL_GCC])?;
        return Ok(Vec::new());
    }
    let (program, package) = arch.c_compiler();
    debian::need(&[(program, package)])?;
    let own = read(Command::new(program).arg("-print-file-name=include"))?;
    let flags = format!(
        "-nostdinc -isystem {} -isystem {} -fno-stack-protector -mno-outline-atomics",
        musl::headers(arch)?.display(),
        own.trim()
    );
    let triple = triple.replace('-', "_");
    Ok(vec![(format!("CC_{triple}"), program.into()), (format!("CFLAGS_{triple}"), flags)])
}
