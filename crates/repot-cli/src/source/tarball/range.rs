//! Part of a file, read without moving its position.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::header::BLOCK;

/// Part of a file, read without moving its position.
#[derive(Debug)]
pub struct Range {
    file: Arc<File>,
    start: u64,
    offset: u64,
    left: u64,
    /// The bytes that [`Range::byte`] has read ahead.
    ahead: Vec<u8>,
}

impl Range {
    /// `left` bytes from `offset` on.
    pub(crate) fn new(file: Arc<File>, offset: u64, left: u64) -> Range {
        Range { file, start: offset, offset, left, ahead: Vec::new() }
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> io::Result<Option<u8>> {
        if self.ahead.is_empty() {
            let mut block = [0; 512];
            let got = self.read(&mut block)?;
            self.ahead.extend(block[..got].iter().rev());
        }
        Ok(self.ahead.pop())
    }

    /// Skips the rest of a block that [`Range::byte`] has begun.
    pub(super) fn to_block(&mut self) {
        self.ahead.clear();
    }

    /// Bytes of whole blocks that were read.
    pub(super) fn consumed(&self) -> u64 {
        (self.offset - self.start).next_multiple_of(BLOCK)
    }
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut buffer[..want], self.offset)?;
        self.offset += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}
