//! Reads one frame from the chunks and decompresses it on demand.

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::io::{Errno, pread};

use super::chunks::{Chunks, path};
use crate::error::{Call, Fault, What};
use crate::payload::archive::Source;
use crate::payload::index::{CHUNK_SIZE, Frame, WINDOW_LOG};
use crate::sys::Zstd;

/// Size of the input and of the output buffer, in bytes.
const BUFFER: usize = 128 * 1024;

/// The decoder of one worker, with all the memory that decompression takes. It is reused for each frame.
pub(super) struct Decoder {
    zstd: Zstd,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Decoder {
    /// As many decoders as memory allows: at least one, at most `max`.
    pub(super) fn allocate(max: u32) -> Result<Vec<Decoder>, Fault> {
        let mut decoders = Vec::from([Decoder::new()?]);
        decoders.extend((1..max).map_while(|_| Decoder::new().ok()));
        Ok(decoders)
    }

    fn new() -> Result<Decoder, Fault> {
        let no_memory =
            || Fault { what: What::Call("malloc"), path: b"decoder".to_vec(), errno: Errno::NOMEM };
        let zstd = Zstd::new(WINDOW_LOG).ok_or_else(no_memory)?;
        // The buffers come last: they can use the memory reserve, the decoder cannot.
        let buffer = || {
            let mut buffer = Vec::new();
            buffer.try_reserve_exact(BUFFER).map_err(|_| no_memory())?;
            buffer.resize(BUFFER, 0);
            Ok(buffer)
        };
        Ok(Decoder { zstd, input: buffer()?, output: buffer()? })
    }
}

/// A frame that is being read.
pub(super) struct Reader<'a> {
    decoder: &'a mut Decoder,
    chunks: &'a Chunks<'a>,
    frame: Frame,
    /// Whether to free each chunk after its last use.
    frees: bool,
    /// Offset of the next input bytes in the concatenation of the chunks.
    at: u64,
    file: Option<OwnedFd>,
    /// The unused parts of the decoder's buffers.
    input: core::ops::Range<usize>,
    output: core::ops::Range<usize>,
    /// Bytes still to be decompressed.
    left: u64,
    ended: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        decoder: &'a mut Decoder,
        chunks: &'a Chunks<'a>,
        frame: Frame,
        frees: bool,
    ) -> Result<Self, Fault> {
        if !decoder.zstd.reset() {
            return Err(Fault::flaw("cannot reset the zstd decoder", b""));
        }
        let (input, output) = (0..0, 0..0);
        let left = frame.content;
        Ok(Reader {
            decoder,
            chunks,
            frame,
            frees,
            at: frame.start,
            file: None,
            input,
            output,
            left,
            ended: false,
        })
    }

    /// The number of the chunk that the last input bytes came from.
    pub(super) fn chunk(&self) -> usize {
        usize::try_from(self.at.saturating_sub(1).max(self.frame.start) / CHUNK_SIZE).unwrap_or(usize::MAX)
    }

    /// Checks that the frame was read to its end.
    pub(super) fn finish(mut self) -> Result<(), Fault> {
        if !self.next(1)?.is_empty() {
            return Err(Fault::flaw(
                "frame is longer than the index says, chunk",
                path(self.chunk()).as_bytes(),
            ));
        }
        if self.at != self.frame.end() || !self.input.is_empty() {
            return Err(Fault::flaw("frame ends too early, chunk", path(self.chunk()).as_bytes()));
        }
        Ok(())
    }

    /// Reads more input, at most to the end of a chunk.
    fn fill(&mut self) -> Result<(), Fault> {
        let held = self.chunks.first_frame(self.at);
        if !held.is_empty() {
            let count = held.len().min(BUFFER);
            self.decoder.input[..count].copy_from_slice(&held[..count]);
            self.input = 0..count;
            self.at += count as u64;
            return Ok(());
        }
        let number = usize::try_from(self.at / CHUNK_SIZE).unwrap_or(usize::MAX);
        let end = self.frame.end().min((self.at / CHUNK_SIZE + 1) * CHUNK_SIZE);
        if self.at >= self.frame.end() {
            return Err(Fault::flaw("frame ends too late, chunk", path(self.chunk()).as_bytes()));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.chunks.file(number)?),
        };
        let length = usize::try_from(end - self.at).unwrap_or(BUFFER).min(BUFFER);
        let count = loop {
            match pread(&*file, &mut self.decoder.input[..length], self.at % CHUNK_SIZE) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(Fault::flaw("wrong size of chunk", path(number).as_bytes())),
                read => break read.on("pread64", path(number).as_bytes())?,
            }
        };
        self.input = 0..count;
        self.at += count as u64;
        if self.at == end {
            // All input of this frame from this chunk has been read.
            self.file = None;
            if self.frees {
                self.chunks.done(number)?;
            }
        }
        Ok(())
    }
}

impl Source for Reader<'_> {
    fn next(&mut self, max: usize) -> Result<&[u8], Fault> {
        while self.output.is_empty() && !self.ended {
            if self.input.is_empty() && self.at < self.frame.end() {
                self.fill()?;
            }
            let bytes = &self.decoder.input[self.input.clone()];
            let (taken, made, ended) =
                self.decoder.zstd.decode(bytes, &mut self.decoder.output).ok_or_else(|| {
                    Fault::flaw("zstd cannot decompress chunk", path(self.chunk()).as_bytes())
                })?;
            self.input.start += taken;
            self.output = 0..made;
            self.ended = ended;
            if made as u64 > self.left || (taken == 0 && made == 0 && !self.ended) {
                return Err(Fault::flaw("frame ends too late, chunk", path(self.chunk()).as_bytes()));
            }
            self.left -= made as u64;
        }
        if self.ended && self.output.is_empty() && self.left > 0 {
            return Err(Fault::flaw("frame ends too early, chunk", path(self.chunk()).as_bytes()));
        }
        let piece = self.output.start..self.output.end.min(self.output.start.saturating_add(max));
        self.output.start = piece.end;
        Ok(&self.decoder.output[piece])
    }
}
