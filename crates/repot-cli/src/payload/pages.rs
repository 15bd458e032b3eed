//! Counts the pages that contents take in a tmpfs, and compresses each as zram would.

use std::io;
use std::ops::AddAssign;

use repot::payload::index::Pages;
use zstd::bulk::Compressor;

/// Bytes of the smallest page.
const PAGE: usize = 4096;
/// The kernel's default level for zstd in zram (`zstd_default_clevel`).
const LEVEL: i32 = 3;

/// Compresses pages.
pub(super) struct Measure {
    zstd: Compressor<'static>,
    compressed: Vec<u8>,
    pages: Counted,
}

/// The pages of some contents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted(pub(super) Pages);

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Counted) {
        for (number, more) in self.0.numbers.iter_mut().zip(other.0.numbers) {
            *number += more;
        }
        self.0.zstd += other.0.zstd;
        self.0.lz4 += other.0.lz4;
    }
}

impl Measure {
    pub(super) fn new() -> io::Result<Measure> {
        Ok(Measure {
            zstd: Compressor::new(LEVEL)?,
            compressed: vec![0; lz4_flex::block::get_maximum_output_size(PAGE)],
            pages: Counted::default(),
        })
    }

    /// Adds contents that begin at the start of a page of any size.
    pub(super) fn add(&mut self, contents: &[u8]) -> io::Result<()> {
        for (number, size) in self.pages.0.numbers.iter_mut().zip(Pages::SIZES) {
            let pages = contents.chunks(usize::try_from(size).unwrap_or(usize::MAX));
            *number += pages.filter(|page| !is_hole(page)).count() as u64;
        }
        for page in contents.chunks(PAGE).filter(|page| !is_hole(page)) {
            // The kernel compresses whole pages.
            let mut whole = [0; PAGE];
            whole[..page.len()].copy_from_slice(page);
            let zstd = self.zstd.compress_to_buffer(&whole, &mut self.compressed[..])?;
            self.pages.0.zstd += stored(zstd);
            let lz4 = lz4_flex::block::compress_into(&whole, &mut self.compressed);
            self.pages.0.lz4 += stored(lz4.map_err(io::Error::other)?);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Counted {
        self.pages
    }
}

/// Whether the init leaves a hole: all zeros. It need not be a whole page.
fn is_hole(page: &[u8]) -> bool {
    page.iter().all(|byte| *byte == 0)
}

fn stored(compressed: usize) -> u64 {
    let compressed = compressed as u64;
    if compressed < Pages::INCOMPRESSIBLE { compressed } else { PAGE as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(parts: &[&[u8]]) -> Pages {
        let mut measure = Measure::new().expect("a compressor");
        for part in parts {
            measure.add(part).expect("compressed");
        }
        measure.finish().0
    }

    /// Bytes that do not compress.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn pages_are_counted_in_each_size() {
        assert_eq!(measured(&[]), Pages::default());
        assert_eq!(measured(&[b"small"]).numbers, [1, 1, 1]);
        assert_eq!(measured(&[&[7; 20_000]]).numbers, [5, 2, 1]);
        assert_eq!(measured(&[&[7; 65_537], b"another"]).numbers, [18, 6, 3]);
    }

    #[test]
    fn holes_take_nothing() {
        assert_eq!(measured(&[&[0; 65_536]]), Pages::default());
        let mut sparse = vec![0; 128 << 10];
        sparse[70_000] = 1;
        assert_eq!(measured(&[&sparse]).numbers, [1, 1, 1]);
    }

    #[test]
    fn a_page_is_compressed_by_itself() {
        let page = noise(PAGE);
        let repeated = page.repeat(16);
        let pages = measured(&[&repeated]);
        assert_eq!((pages.zstd, pages.lz4), (65_536, 65_536), "noise that repeats page by page");
        let text = b"compressible text; ".repeat(4000);
        let pages = measured(&[&text]);
        assert!(pages.zstd * 20 < pages.bytes() && pages.lz4 * 20 < pages.bytes(), "{pages:?}");
    }
}
