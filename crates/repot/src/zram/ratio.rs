//! How well a payload compresses page by page.

use super::Algorithm;
use crate::payload::index::{Frame, Index};

/// Thousandths of a compressed page per thousandth of the payload's own ratio. zram compresses each page of
/// 4 KiB by itself, which is worse than frames of 4 MiB: see docs/zram.md for the measurement.
const ZSTD: u64 = 1500;
const OTHER: u64 = 2000;
/// What the allocator of the device takes besides, in thousandths of a page.
const BESIDES: u64 = 20;

/// What a page of this payload takes in zram, in thousandths of its size.
pub fn thousandths(index: &Index, algorithm: Algorithm) -> u64 {
    let factor = if algorithm == Algorithm::Zstd { ZSTD } else { OTHER };
    let sum = |size: fn(&Frame) -> u64| index.frames.iter().map(size).sum::<u64>();
    let (compressed, content) = (sum(|frame| frame.size), sum(|frame| frame.content).max(1));
    (compressed.saturating_mul(factor) / content).saturating_add(BESIDES).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Debian root of the bench, whose pages were measured by themselves: 42.1 % with zstd, 57.4 % with
    /// lz4 (docs/zram.md).
    #[test]
    fn the_estimate_is_close_to_what_was_measured() {
        let frame = Frame { start: 0, size: 59_139_000, content: 198_000_000, more: false };
        let index = Index { frames: alloc::vec![frame], ..Index::default() };
        assert_eq!(thousandths(&index, Algorithm::Zstd), 468);
        assert_eq!(thousandths(&index, Algorithm::Other), 617);
        let noise = Index { frames: alloc::vec![Frame { size: 198_000_000, ..frame }], ..index };
        assert_eq!(thousandths(&noise, Algorithm::Zstd), 1000);
    }
}
