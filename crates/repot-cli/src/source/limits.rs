//! How much a hostile archive may make us keep: a root file system is smaller than this, or it fits into no
//! memory.

use std::io::{self, Read};

/// Entries of one source, a few hundred bytes of memory each.
pub const ENTRIES: usize = 2 << 20;

/// Bytes of names, link targets and extended attributes of one source.
pub const WORDS: usize = 512 << 20;

/// Bytes that an archive may unpack to on disk while it is read.
pub const UNPACKED: u64 = 64 << 30;

/// Long names and PAX records before one entry of a tar archive.
pub const RECORDS: u64 = 4 << 20;

/// One file of JSON in an image.
pub const JSON: u64 = 16 << 20;

/// A reader that fails when more than `left` bytes come.
#[derive(Debug)]
pub struct Limited<R> {
    input: R,
    left: u64,
}

impl<R> Limited<R> {
    /// Lets `most` bytes pass.
    pub fn new(input: R, most: u64) -> Limited<R> {
        Limited { input, left: most }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.left = self.left.checked_sub(got as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it unpacks to more than any memory holds: a decompression bomb?",
            )
        })?;
        Ok(got)
    }
}

/// Counts what is kept in memory of a source.
#[derive(Debug, Default)]
pub struct Weight {
    entries: usize,
    words: usize,
}

impl Weight {
    /// One more entry, with so many bytes of names, targets and attributes.
    pub fn add(&mut self, words: usize) -> anyhow::Result<()> {
        self.entries += 1;
        self.words = self.words.saturating_add(words);
        anyhow::ensure!(self.entries <= ENTRIES, "more entries than any root file system has");
        anyhow::ensure!(self.words <= WORDS, "longer names and attributes than any root file system has");
        Ok(())
    }
}
