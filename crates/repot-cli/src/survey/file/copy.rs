//! Copies an image that can be read only once into a file.

use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail};

use crate::codec::Compression;
use crate::survey::segments::{ONLY_ZEROS, ZEROS};

/// An unnamed file with the input, and its length. What is no image may have no end, so it is copied only so
/// far that its first bytes say what is wrong.
pub(super) fn copy(mut input: &File, name: &str) -> Result<(File, u64)> {
    let mut output = tempfile::tempfile().context("cannot create a temporary file")?;
    let (mut block, mut length, mut begun) = (vec![0; 256 << 10], 0, false);
    loop {
        let got = match input.read(&mut block) {
            Ok(0) => return Ok((output, length)),
            Ok(got) => &block[..got],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
        };
        output.write_all(got).context("cannot write a temporary file")?;
        let is_first = length == 0;
        length += got.len() as u64;
        if begun {
            continue;
        }
        let zeros = got.iter().take_while(|byte| **byte == 0).count();
        begun = zeros < got.len();
        if !begun && length > ZEROS {
            bail!("{name}: {ONLY_ZEROS}");
        }
        // A pipe may give less than what the first bytes are known by.
        if begun && got.len() - zeros >= 512 && !(begins(&got[zeros..]) || is_first && is_kernel(got)) {
            return Ok((output, length));
        }
    }
}

/// Whether an archive, a compressed stream or a file with one begins here.
fn begins(bytes: &[u8]) -> bool {
    let [first, second, ..] = *bytes else { return false };
    let known: [&[u8]; 4] = [b"0707", b"MZ", b".eif", b"\x7fELF"];
    known.iter().any(|magic| bytes.starts_with(magic)) || Compression::detect(&[first, second]).is_ok()
}

/// Whether it is a kernel whose first bytes are code.
fn is_kernel(head: &[u8]) -> bool {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    at(0x202, b"HdrS") || at(4, b"zimg") || at(0x38, b"ARM\x64") || at(0x38, b"RSC\x05")
}
