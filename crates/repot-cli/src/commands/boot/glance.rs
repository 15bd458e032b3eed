//! The architecture of an image by its first program. The image is read no further than that, and the images
//! of repot begin with `/init`.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use repot::facts::program::Architecture;

use crate::newc::Item;
use crate::programs;
use crate::survey::segments::{self, Segment, Visit};

/// Bytes of a program that are read: its ELF header is among them.
const HEAD: u64 = 512;

/// The architecture of the first program of an image, if there is one.
pub(super) fn architecture(image: &Path) -> Option<Architecture> {
    let mut first = First(None);
    // An error is the end of the search, or of an image that is corrupt.
    let _ = segments::read(File::open(image).ok()?, &mut first);
    first.0
}

struct First(Option<Architecture>);

/// Ends the reading.
#[derive(Debug)]
struct Found;

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("found")
    }
}

impl std::error::Error for Found {}

impl Visit for First {
    fn segment(&mut self, _segment: Segment) -> Result<()> {
        Ok(())
    }

    fn item(&mut self, item: Item, _offset: u64, data: &mut dyn Read) -> Result<()> {
        let Item::Member(header) = item else { return Ok(()) };
        if header.mode & 0o170_000 != 0o100_000 || header.mode & 0o111 == 0 {
            return Ok(());
        }
        let mut head = Vec::new();
        data.take(HEAD).read_to_end(&mut head)?;
        self.0 = programs::of_head(&head, &mut false).ok().and_then(|program| program.architecture);
        if self.0.is_some() { Err(Found.into()) } else { Ok(()) }
    }

    fn end(&mut self, _offset: u64, _decompressed: u64) -> Result<()> {
        Ok(())
    }
}
