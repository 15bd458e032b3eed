//! lz4. Written is the legacy frame, the only one the kernel reads (`lib/decompress_unlz4.c`).
//!
//! A magic number, then for every 8 MiB of input the size of the compressed block and the block. The format
//! has no end mark: it ends with the image, or before four zeros.

use std::io::{self, BufRead, Read, Write};

use lz4_flex::frame::FrameDecoder;

use super::any::{is_skippable, skip_frame};
use super::parallel::Blocks;

const MAGIC: u32 = 0x184C_2102;
const BLOCK: usize = 8 << 20;

/// The magic of the modern frame.
const FRAME: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

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
    /// Whether another frame may follow, and the magic of the one that does.
    lenient: bool,
    next: Option<[u8; 4]>,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(mut input: R) -> io::Result<Decoder<R>> {
        let mut magic = [0; 4];
        input.read_exact(&mut magic)?;
        if u32::from_le_bytes(magic) != MAGIC {
            return Err(invalid("not the legacy lz4 magic"));
        }
        Ok(Decoder::behind_magic(input))
    }

    fn behind_magic(input: R) -> Decoder<R> {
        Decoder { input, block: Vec::new(), read: 0, ended: false, lenient: false, next: None }
    }

    /// Decompresses the next block. Returns false at the end of the input, or at zero padding.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut size = [0; 4];
        let got = read_up_to(&mut self.input, &mut size)?;
        if self.lenient && (is_skippable(&size) || size == FRAME) {
            self.next = Some(size);
            return Ok(false);
        }
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
        self.input.read_exact(&mut packed).map_err(|error| {
            if error.kind() != io::ErrorKind::UnexpectedEof {
                return error;
            }
            // The magic of what follows was taken for a size.
            let why = "truncated in a block (or a segment follows lz4, which has no end mark)";
            io::Error::new(io::ErrorKind::UnexpectedEof, why)
        })?;
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

/// Reads all frames of a file, as lz4 does: legacy ones, modern ones, and those without data.
#[derive(Debug)]
pub(super) enum Frames<R: BufRead> {
    /// The next frame is to be read, whose magic may be read already.
    Between(R, Option<[u8; 4]>),
    Legacy(Decoder<R>),
    Modern(Box<FrameDecoder<Cursor<R>>>),
    End,
}

/// The input behind a magic that was read already.
type Cursor<R> = io::Chain<io::Cursor<[u8; 4]>, R>;

impl<R: BufRead> Frames<R> {
    pub(super) fn new(input: R) -> Frames<R> {
        Frames::Between(input, None)
    }

    /// Begins a frame. What is no frame ends the file.
    fn begin(mut input: R, magic: Option<[u8; 4]>) -> io::Result<Frames<R>> {
        let mut magic = match magic {
            Some(magic) => magic,
            None => {
                let mut magic = [0; 4];
                read_up_to(&mut input, &mut magic)?;
                magic
            }
        };
        while is_skippable(&magic) {
            skip_frame(&mut input)?;
            magic = [0; 4];
            read_up_to(&mut input, &mut magic)?;
        }
        Ok(if magic == MAGIC.to_le_bytes() {
            Frames::Legacy(Decoder { lenient: true, ..Decoder::behind_magic(input) })
        } else if magic == FRAME {
            Frames::Modern(Box::new(FrameDecoder::new(io::Cursor::new(magic).chain(input))))
        } else {
            Frames::End
        })
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let got = match self {
                Frames::Legacy(decoder) => decoder.read(buffer)?,
                Frames::Modern(decoder) => decoder.read(buffer)?,
                Frames::Between(..) => 0,
                Frames::End => return Ok(0),
            };
            if got > 0 {
                return Ok(got);
            }
            *self = match std::mem::replace(self, Frames::End) {
                Frames::Between(input, magic) => Frames::begin(input, magic)?,
                Frames::Legacy(Decoder { input, next: Some(magic), .. }) => {
                    Frames::begin(input, Some(magic))?
                }
                Frames::Modern(decoder) => Frames::begin(decoder.into_inner().into_inner().1, None)?,
                Frames::Legacy(_) | Frames::End => Frames::End,
            };
        }
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
