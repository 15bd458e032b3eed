//! What `boot` takes out of a file that holds an image beside a kernel: a unified kernel image is booted by
//! its parts, as its own stub would.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::cli::Boot;
use crate::survey::file::{ImageFile, Part};
use crate::tree::Contents;

/// Bytes of a command line that are read at most; the kernel's limits are lower.
const LINE: u64 = 64 << 10;

/// The parts, which are removed with this value.
#[derive(Debug)]
pub(super) struct Parts {
    _directory: TempDir,
    /// The options to boot them with.
    pub(super) args: Boot,
}

/// Takes the file apart; `None` if it is nothing but an image.
pub(super) fn take(file: &ImageFile, args: &Boot) -> Result<Option<Parts>> {
    let Some((from, parts)) = file.parts().filter(|(_, parts)| !parts.format.is_empty()) else {
        return Ok(None);
    };
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let mut args = args.clone();
    let contents = |part: &Part| Contents::Range(from.clone(), part.start, part.end - part.start);
    let cannot_copy = || format!("cannot copy the parts of {}", file.name());
    let image = directory.path().join("initrd");
    let joined = file.flat_beside_kernel(directory.path())?;
    let length = joined.metadata().with_context(cannot_copy)?.len();
    write(&Contents::Range(joined, 0, length), &image).with_context(cannot_copy)?;
    if args.kernel.is_none() {
        args.kernel = match &parts.kernel {
            Some(part) => {
                let kernel = directory.path().join("kernel");
                write(&contents(part), &kernel).with_context(cannot_copy)?;
                Some(kernel)
            }
            // A kernel with a built-in initramfs.
            None => Some(args.image.clone()),
        };
    }
    if let Some(part) = &parts.cmdline {
        ensure!(part.end - part.start <= LINE, "{}: the command line is too long", file.name());
        let line = contents(part).read().with_context(cannot_copy)?;
        let line = String::from_utf8_lossy(&line);
        // What is given with --append comes last, and so wins.
        args.append.insert(0, line.trim_matches(['\0', '\n', ' ']).to_string());
    }
    args.image = image;
    Ok(Some(Parts { _directory: directory, args }))
}

/// Copies a part into a file.
fn write(part: &Contents, path: &Path) -> io::Result<()> {
    let copied = io::copy(&mut part.open()?.take(part.len()), &mut File::create(path)?)?;
    if copied < part.len() { Err(io::Error::other("did the file shrink?")) } else { Ok(()) }
}
