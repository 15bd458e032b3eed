//! The decoder of the C library of zstd, in one block of memory that is ours, so that it can be wiped.

use core::ffi::c_void;
use core::ptr::NonNull;

use zstd_safe::zstd_sys::{
    ZSTD_DCtx, ZSTD_DCtx_reset, ZSTD_DCtx_setParameter, ZSTD_ResetDirective, ZSTD_dParameter,
    ZSTD_decompressStream, ZSTD_estimateDStreamSize, ZSTD_inBuffer, ZSTD_initStaticDStream, ZSTD_isError,
    ZSTD_outBuffer,
};

use super::memory::free;

/// A decoder for frames with windows up to one size. It never allocates after `new`.
pub(crate) struct Zstd {
    context: NonNull<ZSTD_DCtx>,
    /// The block that holds the context and the window, and its size.
    block: NonNull<c_void>,
    size: usize,
}

// SAFETY: it owns its block, and the C library keeps no state of a context elsewhere.
unsafe impl Send for Zstd {}

impl Zstd {
    /// Allocates a decoder for windows of `1 << window_log` bytes. The kernel provides the pages of the
    /// window when they are first written. `None` without memory.
    pub(crate) fn new(window_log: u32) -> Option<Zstd> {
        // SAFETY: it only computes a size.
        let size = unsafe { ZSTD_estimateDStreamSize(1 << window_log) };
        // SAFETY: any size is a valid argument. The alignment of malloc is enough.
        let block = NonNull::new(unsafe { libc::malloc(size) })?;
        // SAFETY: the block has this size, and lives as long as the context.
        let context = unsafe { ZSTD_initStaticDStream(block.as_ptr(), size) };
        let Some(context) = NonNull::new(context) else {
            // SAFETY: the block came from malloc, and nothing uses it.
            unsafe { libc::free(block.as_ptr()) };
            return None;
        };
        let decoder = Zstd { context, block, size };
        let log = i32::try_from(window_log).unwrap_or(i32::MAX);
        // SAFETY: the context is valid.
        let set =
            unsafe { ZSTD_DCtx_setParameter(context.as_ptr(), ZSTD_dParameter::ZSTD_d_windowLogMax, log) };
        succeeded(set).then_some(decoder)
    }

    /// Prepares the decoder for a frame.
    pub(crate) fn reset(&mut self) -> bool {
        let session = ZSTD_ResetDirective::ZSTD_reset_session_only;
        // SAFETY: the context is valid.
        succeeded(unsafe { ZSTD_DCtx_reset(self.context.as_ptr(), session) })
    }

    /// Decompresses some input. Returns the bytes taken, the bytes made, and whether the frame has ended;
    /// `None` for corrupt input.
    pub(crate) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Option<(usize, usize, bool)> {
        let mut from = ZSTD_inBuffer { src: input.as_ptr().cast(), size: input.len(), pos: 0 };
        let mut to = ZSTD_outBuffer { dst: output.as_mut_ptr().cast(), size: output.len(), pos: 0 };
        // SAFETY: the context is valid, and both buffers describe slices that live until the call returns.
        let hint = unsafe { ZSTD_decompressStream(self.context.as_ptr(), &raw mut to, &raw mut from) };
        succeeded(hint).then_some((from.pos, to.pos, hint == 0))
    }
}

impl Drop for Zstd {
    fn drop(&mut self) {
        // SAFETY: the block came from malloc with this size, and nothing uses it any more.
        unsafe { free(self.block.as_ptr(), self.size) }
    }
}

fn succeeded(code: usize) -> bool {
    // SAFETY: it only looks at the number.
    unsafe { ZSTD_isError(code) == 0 }
}
