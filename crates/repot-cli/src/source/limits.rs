//! How much a hostile archive may make us keep: a root file system is smaller than this, or it fits into no
//! memory.

use std::io::{self, Read};

/// Entries of one source, a few hundred bytes of memory each.
pub const ENTRIES: usize = 2 << 20;

/// Bytes of names, link targets and extended attributes of one source.
pub const WORDS: usize = 512 << 20;

/// Bytes that a source may unpack to on disk while it is read.
pub const UNPACKED: u64 = 64 << 30;

/// How many times its size it may, and what is never too much. Real roots compress to a tenth or a twentieth.
pub const RATIO: u64 = 200;
/// See [`RATIO`].
pub const HARMLESS: u64 = 256 << 20;

/// Layers of one image: container engines end at 127.
pub const LAYERS: usize = 1024;

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
        self.left = self
            .left
            .checked_sub(got as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "larger than any"))?;
        Ok(got)
    }
}

/// Counts what is kept of a source, in memory and on disk.
#[derive(Debug, Default)]
pub struct Weight {
    entries: usize,
    words: usize,
    unpacked: u64,
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

    /// So many bytes more that were not there in the source: unpacked, or holes.
    pub fn unpack(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        anyhow::ensure!(self.unpacked <= UNPACKED, "it unpacks to more than any memory holds");
        Ok(())
    }
}

/// Refuses what comes out of a compression in no proportion to what went in.
pub fn proportion(unpacked: u64, packed: u64) -> anyhow::Result<()> {
    anyhow::ensure!(
        unpacked <= HARMLESS.max(packed.saturating_mul(RATIO)),
        "a decompression bomb: {packed} bytes unpack to more than {unpacked} (if they should, unpack it and pack the directory)"
    );
    Ok(())
}
