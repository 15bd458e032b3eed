//! Writing a payload: the root as a `.tar.zst` in frames, and the index that describes it.
//!
//! docs/payload.md describes the format. The library reads it.

mod chunks;
mod frames;
mod ordered;
mod pages;
mod tar_header;

use std::path::Path;

use anyhow::{Context, Result};
use repot::display::Hex;
use repot::payload::index::Index;
use repot::zram;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::tree::Tree;

pub use frames::Payload;

/// What the summaries of `pack` and `inspect` report about a payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The digest that `payload=` can pin the image to, as `sha256:HEX`.
    pub digest: String,
    /// Names in it.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its largest file.
    pub largest: u64,
    /// Bytes of its chunks.
    pub compressed: u64,
    /// Number of chunks.
    pub chunks: usize,
    /// Number of frames.
    pub frames: usize,
    /// What a page takes in swap in compressed memory, in thousandths of its size.
    pub zram_thousandths: u64,
}

impl Facts {
    /// The facts in an index.
    #[must_use]
    pub fn of(index: &Index) -> Facts {
        Facts {
            digest: format!("sha256:{}", Hex(&digest(index))),
            entries: index.entries,
            bytes: index.bytes,
            zram_thousandths: zram::thousandths(index, zram::Algorithm::Zstd),
            largest: index.largest,
            compressed: index.compressed(),
            chunks: index.chunks.len(),
            frames: index.frames.len(),
        }
    }
}

/// The SHA-256 of an index.
#[must_use]
pub fn digest(index: &Index) -> [u8; 32] {
    Sha256::digest(index.text()).into()
}

/// Writes the payload of a tree to an unnamed file in `scratch`.
pub fn write(tree: &Tree, level: u32, scratch: &Path, progress: &mut dyn FnMut(u64)) -> Result<Payload> {
    let file = tempfile::tempfile_in(scratch)
        .with_context(|| format!("cannot create a temporary file in {}", scratch.display()))?;
    frames::write(tree, i32::try_from(level)?, file, progress)
}
