//! The compressed stream on its way into a file, and what the index says of its chunks.

use std::fs::File;
use std::io::{self, Write};

use repot::payload::index::{CHUNK, Chunk};
use sha2::{Digest, Sha256};

/// Writes a stream and keeps the sizes and digests of its chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    file: File,
    sum: Sha256,
    /// How much of the chunk at hand is there.
    filled: u64,
    done: Vec<Chunk>,
}

impl Chunks {
    pub(super) fn new(file: File) -> Chunks {
        Chunks { file, sum: Sha256::new(), filled: 0, done: Vec::new() }
    }

    /// Where the stream is.
    pub(super) fn position(&self) -> u64 {
        self.done.len() as u64 * CHUNK + self.filled
    }

    pub(super) fn finish(mut self) -> (File, Vec<Chunk>) {
        if self.filled > 0 {
            self.end();
        }
        (self.file, self.done)
    }

    fn end(&mut self) {
        let digest = std::mem::take(&mut self.sum).finalize().into();
        self.done.push(Chunk { size: std::mem::take(&mut self.filled), digest });
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(CHUNK - self.filled).unwrap_or(usize::MAX);
        let written = self.file.write(&bytes[..bytes.len().min(room)])?;
        self.sum.update(&bytes[..written]);
        self.filled += written as u64;
        if self.filled == CHUNK {
            self.end();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
