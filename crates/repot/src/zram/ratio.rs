//! How well the pages of a payload compress.

use super::Algorithm;
use crate::payload::index::Index;

/// What the allocator of the device takes besides, in thousandths of a page.
const BESIDES: u64 = 20;

/// What a page of this payload takes in zram, in thousandths of its size. `pack` has compressed each page.
pub fn thousandths(index: &Index, algorithm: Algorithm) -> u64 {
    let stored = if algorithm == Algorithm::Zstd { index.pages.zstd } else { index.pages.lz4 };
    (stored.saturating_mul(1000) / index.pages.bytes().max(1)).saturating_add(BESIDES).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::index::Pages;

    /// The Debian root of the bench.
    #[test]
    fn the_ratio_is_that_of_the_pages() {
        let pages = Pages { numbers: [50_066, 16_270, 8_066], zstd: 86_749_593, lz4: 117_558_073 };
        let index = Index { pages, ..Index::default() };
        assert_eq!(thousandths(&index, Algorithm::Zstd), 443);
        assert_eq!(thousandths(&index, Algorithm::Other), 593);
        let noise = Index { pages: Pages { zstd: pages.bytes(), ..pages }, ..index };
        assert_eq!(thousandths(&noise, Algorithm::Zstd), 1000);
        assert_eq!(thousandths(&Index::default(), Algorithm::Zstd), 20);
    }
}
