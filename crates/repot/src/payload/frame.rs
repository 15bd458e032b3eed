//! One frame, read from the chunks and decompressed as it is asked for.

use alloc::vec::Vec;

use rustix::io::Errno;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::archive::Source;
use super::chunks::{Chunks, flaw, path, place};
use super::index::{CHUNK, Frame, WINDOW_LOG};
use crate::error::Fault;
use crate::sys::Mapping;

/// What is decompressed at once, in bytes.
const BUFFER: usize = 128 * 1024;

/// The header of a frame that asks for the largest window and does not say how much it holds (RFC 8878, 3.1.1.1).
const LARGEST: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0, WINDOW.to_be_bytes()[3]];
const WINDOW: u32 = (WINDOW_LOG - 10) << 3;

/// What a thread keeps from one frame to the next: all the memory that decompressing takes.
pub(super) struct Decoder {
    context: DCtx<'static>,
    output: Vec<u8>,
}

impl Decoder {
    /// As many as there is memory for, at least one and at most so many.
    pub(super) fn several(most: u32) -> Result<Vec<Decoder>, Fault> {
        let mut decoders = Vec::from([Decoder::new()?]);
        decoders.extend((1..most).map_while(|_| Decoder::new().ok()));
        Ok(decoders)
    }

    fn new() -> Result<Decoder, Fault> {
        let no_memory = || Fault { call: "malloc", path: b"decoder".to_vec(), errno: Errno::NOMEM };
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(|_| no_memory())?;
        // Last what falls back on the memory that is set aside: the C library's own does not.
        begin(&mut context).ok_or_else(no_memory)?;
        let mut output = Vec::new();
        output.try_reserve_exact(BUFFER).map_err(|_| no_memory())?;
        output.resize(BUFFER, 0);
        Ok(Decoder { context, output })
    }
}

/// Makes it ready for a frame. zstd allocates a window when it meets a header that asks for one, and keeps the largest, but
/// gives it up where many frames in a row need less: so each time it is asked for the largest first.
fn begin(context: &mut DCtx<'static>) -> Option<()> {
    context.reset(ResetDirective::SessionOnly).ok()?;
    let (mut input, mut nothing) = (InBuffer::around(&LARGEST), []);
    context.decompress_stream(&mut OutBuffer::around(&mut nothing[..]), &mut input).ok()?;
    context.reset(ResetDirective::SessionOnly).map(drop).ok()
}

/// A frame being read.
pub(super) struct Reader<'a> {
    decoder: &'a mut Decoder,
    chunks: &'a Chunks<'a>,
    frame: Frame,
    /// Whether chunks are freed behind it.
    frees: bool,
    /// Where the next bytes are in the concatenation.
    at: u64,
    /// The chunk that they are in.
    chunk: Option<Mapping>,
    /// What of the decoder's buffer is not used yet.
    output: core::ops::Range<usize>,
    /// What is still to be decompressed.
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
        begin(&mut decoder.context).ok_or_else(|| flaw("the decoder cannot begin", b""))?;
        let (at, left) = (frame.start, frame.content);
        Ok(Reader { decoder, chunks, frame, frees, at, chunk: None, output: 0..0, left, ended: false })
    }

    /// The chunk that the last bytes came from.
    pub(super) fn chunk(&self) -> usize {
        place(self.at.saturating_sub(1).max(self.frame.start)).0
    }

    /// Ends the frame, which must have been read to its end.
    pub(super) fn finish(mut self) -> Result<(), Fault> {
        if !self.next(1)?.is_empty() {
            return Err(flaw("more in a frame than belongs there, chunk", path(self.chunk()).as_bytes()));
        }
        if self.at != self.frame.end() {
            return Err(flaw("a frame that ends too early, chunk", path(self.chunk()).as_bytes()));
        }
        Ok(())
    }

    /// Decompresses what there is in one chunk, as far as the buffer takes it. Behind the last byte that belongs to the frame the
    /// chunk is done.
    fn decompress(&mut self) -> Result<(), Fault> {
        let (number, start) = place(self.at);
        let end = self.frame.end().min((self.at / CHUNK + 1) * CHUNK);
        let length = usize::try_from(end.saturating_sub(self.at)).unwrap_or(0);
        let held = self.chunks.held(self.at);
        let bytes = match &mut self.chunk {
            _ if length == 0 => &[],
            _ if !held.is_empty() => &held[..length.min(held.len())],
            Some(chunk) => chunk.get(start..start + length).unwrap_or_default(),
            none => {
                let chunk = none.insert(self.chunks.bytes(number)?);
                chunk.get(start..start + length).unwrap_or_default()
            }
        };
        let mut input = InBuffer::around(bytes);
        let mut output = OutBuffer::around(&mut self.decoder.output[..]);
        let hint = self.decoder.context.decompress_stream(&mut output, &mut input);
        let (taken, made) = (input.pos(), output.pos());
        let hint = hint.map_err(|_| flaw("zstd cannot decompress chunk", path(self.chunk()).as_bytes()))?;
        self.output = 0..made;
        self.ended = hint == 0;
        if made as u64 > self.left || (taken == 0 && made == 0 && !self.ended) {
            return Err(flaw("a frame that ends too late, chunk", path(self.chunk()).as_bytes()));
        }
        self.left -= made as u64;
        self.at += taken as u64;
        if self.at == end && taken > 0 {
            self.chunk = None;
            if self.frees {
                self.chunks.done(number)?;
            }
        }
        Ok(())
    }
}

impl Source for Reader<'_> {
    fn next(&mut self, most: usize) -> Result<&[u8], Fault> {
        while self.output.is_empty() && !self.ended {
            self.decompress()?;
        }
        if self.ended && self.output.is_empty() && self.left > 0 {
            return Err(flaw("a frame that ends too early, chunk", path(self.chunk()).as_bytes()));
        }
        let piece = self.output.start..self.output.end.min(self.output.start.saturating_add(most));
        self.output.start = piece.end;
        Ok(&self.decoder.output[piece])
    }
}
