//! gzip: written in parallel, as one member, because the kernel takes a second member for a new segment.
//!
//! Each block is compressed on its own and ends at a byte boundary (a sync flush), so blocks can be
//! concatenated. An empty final block and the checksum of all data end the member.

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::parallel::Blocks;

const BLOCK: usize = 1 << 20;

/// Magic, deflate, no flags, no time, no hint, Unix. It does not depend on when and where it is written.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

/// An empty block with the "final" bit set.
const LAST_BLOCK: [u8; 2] = [3, 0];

#[derive(Debug)]
pub struct Encoder<W: Write> {
    blocks: Blocks<W>,
    sum: Crc,
}

impl<W: Write> Encoder<W> {
    pub(super) fn new(mut out: W, level: u32, threads: usize) -> io::Result<Encoder<W>> {
        out.write_all(&HEADER)?;
        let blocks = Blocks::new(out, BLOCK, threads, move |block| deflate(block, level));
        Ok(Encoder { blocks, sum: Crc::new() })
    }

    pub(super) fn finish(self) -> io::Result<W> {
        let mut out = self.blocks.finish()?;
        out.write_all(&LAST_BLOCK)?;
        out.write_all(&self.sum.sum().to_le_bytes())?;
        out.write_all(&self.sum.amount().to_le_bytes())?;
        Ok(out)
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.blocks.write(bytes)?;
        self.sum.update(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn deflate(block: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut packed = Vec::with_capacity(block.len() + block.len() / 1000 + 64);
    let mut compress = Compress::new(Compression::new(level), /* zlib_header= */ false);
    loop {
        let done = usize::try_from(compress.total_in()).map_err(io::Error::other)?;
        let status = compress.compress_vec(&block[done..], &mut packed, FlushCompress::Sync)?;
        // zlib fills the buffer as long as flushed bytes remain, so free space means that none do.
        if packed.len() < packed.capacity() && compress.total_in() == block.len() as u64 {
            return Ok(packed);
        }
        if status == Status::StreamEnd {
            return Err(io::Error::other("deflate ended the stream too early"));
        }
        packed.reserve(64 << 10);
    }
}
