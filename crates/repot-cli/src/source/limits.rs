//! Limits against hostile archives. No root file system that fits in memory reaches them.

use std::io::{self, Read};

/// Entries of one source. Each takes a few hundred bytes of memory.
pub const ENTRIES: usize = 2 << 20;

/// Bytes of names, link targets and extended attributes of one source.
pub const WORDS: usize = 512 << 20;

/// Bytes of temporary files for one source.
pub const UNPACKED: u64 = 64 << 30;

/// Maximum compression ratio of a stream of more than [`HARMLESS`] bytes. Real roots reach 10 to 20.
pub const RATIO: u64 = 200;
/// Bytes to which any stream may unpack, whatever its ratio.
pub const HARMLESS: u64 = 256 << 20;

/// Layers of one image. Container engines allow 127.
pub const LAYERS: usize = 1024;

/// Bytes of long names and PAX records of one entry of a tar archive.
pub const RECORDS: u64 = 4 << 20;

/// Bytes of a JSON file in a container image.
pub const JSON: u64 = 16 << 20;

/// A reader that fails after `left` bytes.
#[derive(Debug)]
pub struct Limited<R> {
    input: R,
    left: u64,
}

impl<R> Limited<R> {
    /// Allows `limit` bytes.
    pub fn new(input: R, limit: u64) -> Limited<R> {
        Limited { input, left: limit }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.left = self
            .left
            .checked_sub(got as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "larger than allowed"))?;
        Ok(got)
    }
}

/// Counts what a source takes in memory and on disk.
#[derive(Debug, Default)]
pub struct Weight {
    entries: usize,
    words: usize,
    unpacked: u64,
}

impl Weight {
    /// Counts an entry with `words` bytes of names, targets and attributes.
    pub fn add(&mut self, words: usize) -> anyhow::Result<()> {
        self.entries += 1;
        self.words = self.words.saturating_add(words);
        anyhow::ensure!(self.entries <= ENTRIES, "too many entries: the limit is {ENTRIES}");
        anyhow::ensure!(self.words <= WORDS, "too many names and attributes: the limit is {WORDS} bytes");
        Ok(())
    }

    /// Counts bytes of temporary files, holes included.
    pub fn unpack(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        anyhow::ensure!(self.unpacked <= UNPACKED, "it unpacks to more than {UNPACKED} bytes, the limit");
        Ok(())
    }
}

/// Refuses a stream whose compression ratio is too high.
pub fn proportion(unpacked: u64, packed: u64) -> anyhow::Result<()> {
    anyhow::ensure!(
        unpacked <= HARMLESS.max(packed.saturating_mul(RATIO)),
        "looks like a decompression bomb: {packed} bytes unpack to more than {unpacked}. If you trust it, unpack it and \
         pack the directory"
    );
    Ok(())
}
