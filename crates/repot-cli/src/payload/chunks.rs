//! Writes the compressed stream to a file, and collects sizes and digests of its chunks for the index.

use std::fs::File;
use std::io::{self, Write};

use repot::payload::index::{CHUNK_SIZE, Chunk, xxh64};
use sha2::{Digest, Sha256};

/// A stream that is split into chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    file: File,
    /// The bytes of the current chunk.
    chunk: Vec<u8>,
    done: Vec<Chunk>,
}

impl Chunks {
    pub(super) fn new(file: File) -> Chunks {
        Chunks { file, chunk: Vec::new(), done: Vec::new() }
    }

    /// Bytes written so far.
    pub(super) fn position(&self) -> u64 {
        self.done.len() as u64 * CHUNK_SIZE + self.chunk.len() as u64
    }

    pub(super) fn finish(mut self) -> io::Result<(File, Vec<Chunk>)> {
        if !self.chunk.is_empty() {
            self.end()?;
        }
        Ok((self.file, self.done))
    }

    fn end(&mut self) -> io::Result<()> {
        self.file.write_all(&self.chunk)?;
        let (size, sum) = (self.chunk.len() as u64, xxh64(&self.chunk));
        self.done.push(Chunk { size, sum, digest: Sha256::digest(&self.chunk).into() });
        self.chunk.clear();
        Ok(())
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(CHUNK_SIZE).unwrap_or(usize::MAX) - self.chunk.len();
        let taken = room.min(bytes.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if taken == room {
            self.end()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
