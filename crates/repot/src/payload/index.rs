//! The index of a payload: totals, chunks and frames.

#[cfg(feature = "index")]
mod lines;
#[cfg(feature = "index")]
mod text;

use alloc::string::String;
use alloc::vec::Vec;

#[cfg(feature = "index")]
pub use lines::{Flaw, xxh64};

/// The maximum size of an index, in bytes; enough for a payload of 10 GiB.
pub const LIMIT: usize = 5 << 20;
/// The size of a chunk, in bytes. The last one may be shorter.
pub const CHUNK_SIZE: u64 = 256 << 10;
/// The largest zstd window that a frame may need, as a power of two. Each worker holds one window in memory.
pub const WINDOW_LOG: u32 = 20;

/// A parsed index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Names, directories included, the root excluded.
    pub entries: u64,
    /// The sum of the file sizes, each inode once, in bytes.
    pub bytes: u64,
    /// Pages that a tmpfs needs for files and long symbolic links.
    pub pages: Pages,
    /// Inodes, the root included.
    pub inodes: u64,
    /// The largest file, in bytes.
    pub largest: u64,
    /// Memory that extended attributes take from the inode limit of a tmpfs, in bytes.
    pub xattrs: u64,
    /// The chunks, in order.
    pub chunks: Vec<Chunk>,
    /// The frames, in order: directories; files and other entries; hard links.
    pub frames: Vec<Frame>,
    /// The kernel modules beside the payload, which the digest of the index covers too.
    pub modules: Vec<Module>,
}

/// Pages of memory. A page of zeros in a file is not written, so it is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// The number of pages of each size of [`Pages::SIZES`].
    pub numbers: [u64; 3],
    /// Bytes that zram stores for the pages of 4 KiB, each compressed by itself, with zstd at its default
    /// level.
    pub zstd: u64,
    /// The same with lz4.
    pub lz4: u64,
}

impl Pages {
    /// Page sizes of kernels, in bytes.
    pub const SIZES: [u64; 3] = [4 << 10, 16 << 10, 64 << 10];
    /// zram stores a page as it is if it does not compress to fewer bytes (`huge_class_size`, with pages of
    /// 4 KiB).
    pub const INCOMPRESSIBLE: u64 = 3264;

    /// Bytes of the pages of 4 KiB.
    pub fn bytes(&self) -> u64 {
        self.numbers[0].saturating_mul(Self::SIZES[0])
    }
}

/// A file below `.repot-modules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The SHA-256 of its contents.
    pub digest: [u8; 32],
    /// Its path below `.repot-modules`: `RELEASE/NAME`.
    pub path: Vec<u8>,
}

impl Module {
    /// Whether a path can be in an index: a release and a name, without control characters.
    pub fn is_path(path: &[u8]) -> bool {
        let mut parts = path.split(|byte| *byte == b'/');
        let plain =
            |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.iter().any(|byte| *byte < b' ');
        let two = parts.next().is_some_and(plain) && parts.next().is_some_and(plain);
        two && parts.next().is_none()
    }
}

/// A chunk. Its file name is its number, with at least six digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The size in bytes.
    pub size: u64,
    /// The XXH64, against accidental corruption.
    pub sum: u64,
    /// The SHA-256, which the digest of the index covers.
    pub digest: [u8; 32],
}

/// A zstd frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Offset in the concatenation of the chunks, in bytes.
    pub start: u64,
    /// Compressed size, in bytes.
    pub size: u64,
    /// Uncompressed size, in bytes.
    pub content: u64,
    /// Whether it continues the contents of a file. The header of that file is the last earlier frame without
    /// this flag.
    pub more: bool,
}

/// A piece of a file whose header is a separate frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of the frame with the header.
    pub header: usize,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Uncompressed size, in bytes. The last piece includes the zeros up to a whole block.
    pub content: u64,
    /// Whether it is the last piece.
    pub last: bool,
}

impl Index {
    /// The memory of all pages on a kernel with pages of `page` bytes, in bytes. An upper bound if the index
    /// does not count such pages.
    pub fn memory(&self, page: u64) -> u64 {
        let counted = Pages::SIZES.iter().zip(&self.pages.numbers).find(|(size, _)| **size >= page);
        match counted {
            Some((size, number)) => number.saturating_mul(*size),
            None => self.bytes.saturating_add(self.inodes.saturating_mul(page)),
        }
    }
}

impl Frame {
    /// The end offset in the concatenation of the chunks.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }

    /// The numbers of the chunks that hold it.
    pub fn chunks(&self) -> core::ops::RangeInclusive<usize> {
        let number = |at: u64| usize::try_from(at / CHUNK_SIZE).unwrap_or(usize::MAX);
        number(self.start)..=number(self.end() - 1)
    }
}

/// The file name of a chunk.
pub fn name(number: usize) -> String {
    alloc::format!("{number:06}")
}

/// Parses exactly `N` bytes in lowercase hexadecimal.
pub(crate) fn hexadecimal<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let mut out = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

impl Index {
    /// The number of pieces, each of them a frame, that follow this header; 0 for any other frame.
    pub fn pieces(&self, header: usize) -> u32 {
        let is_header = self.frames.get(header).is_some_and(|frame| !frame.more);
        let behind = self.frames.iter().skip(header + 1).take_while(|frame| frame.more);
        if is_header { u32::try_from(behind.count()).unwrap_or(u32::MAX) } else { 0 }
    }

    /// The piece of a file that this frame holds; `None` if it holds none.
    pub fn piece(&self, number: usize) -> Option<Piece> {
        let Frame { content, more: true, .. } = *self.frames.get(number)? else { return None };
        let header = self.frames[..number].iter().rposition(|frame| !frame.more)?;
        let before = self.frames[header + 1..number].iter();
        let offset = before.fold(0u64, |sum, frame| sum.saturating_add(frame.content));
        let last = self.frames.get(number + 1).is_none_or(|frame| !frame.more);
        Some(Piece { header, offset, content, last })
    }

    /// The size of all chunks, in bytes.
    pub fn compressed(&self) -> u64 {
        self.frames.last().map_or(0, Frame::end)
    }
}
