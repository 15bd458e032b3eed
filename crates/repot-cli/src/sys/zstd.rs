//! Decompresses a frame of zstd into a ring, from which others read while the next block is decompressed.
//!
//! The streaming functions of the C library have a ring of their own, and copy everything out of it. Those
//! without a buffer (`ZSTD_decompressContinue`) leave it to the caller.
//!
//! Neither compares distances with the window, but with what they still have. So a damaged frame without a
//! checksum can be an error there and wrong bytes here, where the ring is larger.

mod ring;

use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use zstd::zstd_safe::get_error_name;
use zstd::zstd_safe::zstd_sys::{
    ZSTD_DCtx, ZSTD_FrameHeader, ZSTD_createDCtx, ZSTD_decompressBegin, ZSTD_decompressContinue,
    ZSTD_freeDCtx, ZSTD_getFrameHeader, ZSTD_isError, ZSTD_nextSrcSizeToDecompress,
};

pub(crate) use self::ring::Piece;
use self::ring::Ring;

/// Bytes of a piece, unless the frame ends. Smaller ones wake the reader more often.
const PIECE: usize = 512 << 10;

/// The decoder of one frame.
#[derive(Debug)]
pub(crate) struct Frame {
    context: Context,
    /// The header until it is complete.
    header: Vec<u8>,
    ring: Option<Ring>,
    largest_window: u64,
}

#[derive(Debug)]
struct Context(NonNull<ZSTD_DCtx>);

// SAFETY: the C library keeps no state of a context elsewhere.
unsafe impl Send for Context {}

impl Frame {
    /// A decoder of a frame with a window of at most so many bytes. `None` without memory.
    pub(crate) fn new(largest_window: u64) -> Option<Frame> {
        // SAFETY: it only allocates.
        let context = Context(NonNull::new(unsafe { ZSTD_createDCtx() })?);
        // SAFETY: the context is valid.
        let begun = unsafe { ZSTD_decompressBegin(context.0.as_ptr()) };
        succeeded(begun).ok()?;
        Some(Frame { context, header: Vec::new(), ring: None, largest_window })
    }

    /// How many bytes [`decode`](Frame::decode) takes next: 0 at the end of the frame.
    pub(crate) fn wants(&self) -> usize {
        // SAFETY: the context is valid.
        unsafe { ZSTD_nextSrcSizeToDecompress(self.context.0.as_ptr()) }
    }

    /// Whether there is room for a block. If not, a piece must be dropped first.
    pub(crate) fn has_room(&mut self) -> bool {
        self.ring.as_mut().is_none_or(|ring| ring.next().is_some())
    }

    /// Takes exactly as many bytes as it [wants](Frame::wants).
    pub(crate) fn decode(&mut self, input: &[u8]) -> io::Result<()> {
        let context = self.context.0.as_ptr();
        let from = input.as_ptr().cast();
        let Some(ring) = &mut self.ring else {
            // SAFETY: the context is valid, and there is no output yet.
            let taken = unsafe { ZSTD_decompressContinue(context, ptr::null_mut(), 0, from, input.len()) };
            succeeded(taken)?;
            self.header.extend_from_slice(input);
            self.ring = self.ring()?;
            return Ok(());
        };
        let to =
            ring.next().ok_or_else(|| io::Error::other("somebody reads where the next block belongs"))?;
        // SAFETY: the context is valid, and nobody reads where the block goes.
        let made =
            unsafe { ZSTD_decompressContinue(context, to.as_ptr().cast(), ring.block(), from, input.len()) };
        ring.advance(succeeded(made)?);
        Ok(())
    }

    /// What has been decompressed, if it is enough for a piece or the last.
    pub(crate) fn piece(&mut self, last: bool) -> Option<Arc<Piece>> {
        self.ring.as_mut()?.take(if last { 1 } else { PIECE })
    }

    /// Where the blocks go, when the header is complete.
    fn ring(&self) -> io::Result<Option<Ring>> {
        /// What the library may write behind a block: twice `WILDCOPY_OVERLENGTH`, as in
        /// `ZSTD_decodingBufferSize_min`.
        const BEHIND: usize = 64;
        let mut found = MaybeUninit::<ZSTD_FrameHeader>::uninit();
        let header = &self.header;
        // SAFETY: both arguments describe valid memory.
        let missing =
            unsafe { ZSTD_getFrameHeader(found.as_mut_ptr(), header.as_ptr().cast(), header.len()) };
        if succeeded(missing)? > 0 {
            return Ok(None);
        }
        // SAFETY: it has been written.
        let found = unsafe { found.assume_init() };
        let window = usize::try_from(found.windowSize).ok();
        let window = window.filter(|_| found.windowSize <= self.largest_window);
        let window = window.ok_or_else(|| io::Error::other("Frame requires too much memory for decoding"))?;
        let block = found.blockSizeMax as usize + BEHIND;
        // While a piece is read, another is made.
        Ok(Some(Ring::new(block, window + block + 2 * PIECE)?))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is valid, and nothing uses it any more.
        unsafe { ZSTD_freeDCtx(self.0.as_ptr()) };
    }
}

fn succeeded(code: usize) -> io::Result<usize> {
    // SAFETY: it only looks at the number.
    if unsafe { ZSTD_isError(code) } == 0 { Ok(code) } else { Err(io::Error::other(get_error_name(code))) }
}
