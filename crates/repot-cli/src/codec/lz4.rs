//! The legacy lz4 frame, the only one the kernel reads (`lib/decompress_unlz4.c`).
//!
//! A magic number, then for every 8 MiB of input the size of the compressed block and the block. The format
//! has no end mark: it ends with the image, or before four zeros.

use std::io::{self, BufRead, Read, Write};

use super::parallel::Blocks;

const MAGIC: u32 = 0x184C_2102;
const BLOCK: usize = 8 << 20;

pub(super) fn encoder<W: Write>(mut out: W, threads: usize) -> io::Result<Blocks<W>> {
    out.write_all(&MAGIC.to_le_bytes())?;
    Ok(Blocks::new(out, BLOCK, threads, |block| {
        let packed = lz4_flex::block::compress(block);
        let size = u32::try_from(packed.len()).map_err(io::Error::other)?;
        Ok([&size.to_le_bytes()[..], &packed].concat())
    }))
}

#[derive(Debug)]
pub(super) struct Decoder<R: BufRead> {
    input: R,
    block: Vec<u8>,
    read: usize,
    ended: bool,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(mut input: R) -> io::Result<Decoder<R>> {
        let mut magic = [0; 4];
        input.read_exact(&mut magic)?;
        if u32::from_le_bytes(magic) != MAGIC {
            return Err(invalid("not the legacy lz4 magic"));
        }
        Ok(Decoder { input, block: Vec::new(), read: 0, ended: false })
    }

    /// Decompresses the next block. Returns false at the end of the input, or at zero padding.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut size = [0; 4];
        let got = read_up_to(&mut self.input, &mut size)?;
        let size = u32::from_le_bytes(size);
        if size == 0 {
            return Ok(false);
        }
        if got < 4 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "truncated in the size of a block"));
        }
        if size == MAGIC {
            // `cat a.lz4 b.lz4` repeats the magic. It counts as an empty block, and the caller asks again.
            self.block.clear();
            self.read = 0;
            return Ok(true);
        }
        let limit = lz4_flex::block::get_maximum_output_size(BLOCK);
        let size = usize::try_from(size).ok().filter(|size| *size <= limit);
        let size = size.ok_or_else(|| {
            invalid("a block is larger than 8 MiB (or a segment follows lz4, which has no end mark)")
        })?;
        let mut packed = vec![0; size];
        self.input.read_exact(&mut packed)?;
        self.block.resize(BLOCK, 0);
        let len = lz4_flex::block::decompress_into(&packed, &mut self.block).map_err(invalid)?;
        self.block.truncate(len);
        self.read = 0;
        Ok(true)
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.block.len() {
            if self.ended || !self.next_block()? {
                self.ended = true;
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.block.len() - self.read);
        buffer[..count].copy_from_slice(&self.block[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}

fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
