//! The format of payload images: `.repot-payload/` in the initramfs holds the root as a `.tar.zst`, cut into
//! chunks.
//!
//! The kernel unpacks only `/init` and the chunks. The init decompresses each zstd frame and frees each chunk
//! once its last byte has been read, so the compressed and the unpacked tree are never both in memory.
//! docs/payload.md describes the format.

#[cfg(feature = "index")]
pub mod archive;
pub mod index;

/// The directory of the chunks and the index, relative to the root.
pub const DIRECTORY: &str = ".repot-payload";
