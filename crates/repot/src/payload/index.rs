//! The index of a payload: what is in it, its chunks and its frames.

#[cfg(feature = "index")]
mod text;

use alloc::string::String;
use alloc::vec::Vec;

#[cfg(feature = "index")]
pub use text::{Flaw, xxh64};

/// A longer index is refused; this is enough for a payload of 10 GiB.
pub const LIMIT: usize = 5 << 20;
/// The size of a chunk, in bytes; the last one may be shorter.
pub const CHUNK: u64 = 256 << 10;
/// The largest window that a frame may ask for, as a power of two: it is what each thread holds in memory.
pub const WINDOW_LOG: u32 = 20;

/// What an index says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Names, directories included, the root not.
    pub entries: u64,
    /// The sum of the sizes of the files, each inode once, in bytes.
    pub bytes: u64,
    /// Pages of 4 KiB that a tmpfs needs for files and long symbolic links.
    pub pages: u64,
    /// Inodes, the root included.
    pub inodes: u64,
    /// The largest file, in bytes.
    pub largest: u64,
    /// What extended attributes take of a tmpfs's inodes, in bytes.
    pub xattrs: u64,
    /// The chunks, in order.
    pub chunks: Vec<Chunk>,
    /// The frames, in order: the directories; files and what else has one name; the further names.
    pub frames: Vec<Frame>,
}

/// A chunk. Its name is its number in at least six digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its size in bytes.
    pub size: u64,
    /// Its XXH64, which tells damage.
    pub sum: u64,
    /// Its SHA-256, by which the digest of the index vouches for it.
    pub digest: [u8; 32],
}

/// A frame of the compressed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it begins in the concatenation of the chunks.
    pub start: u64,
    /// How many bytes it has there.
    pub size: u64,
    /// How many bytes of archive it becomes.
    pub content: u64,
    /// Whether that goes on with the contents of the file whose header is the last frame before it that does
    /// not.
    pub more: bool,
}

/// A piece of a file whose header is a frame of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of the frame with the header.
    pub header: usize,
    /// Where in the file it begins.
    pub offset: u64,
    /// How many bytes of archive it is: of the file, and behind its last piece zeros up to a whole block.
    pub content: u64,
    /// Whether no piece follows.
    pub last: bool,
}

impl Frame {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }

    /// The numbers of the chunks that it is in, where all chunks but the last have the same size.
    pub fn chunks(&self) -> core::ops::RangeInclusive<usize> {
        let number = |at: u64| usize::try_from(at / CHUNK).unwrap_or(usize::MAX);
        number(self.start)..=number(self.end() - 1)
    }
}

/// The name of a chunk.
pub fn name(number: usize) -> String {
    alloc::format!("{number:06}")
}

/// So many bytes in hexadecimal.
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
    /// In how many pieces, each of them a frame, the contents of the file come whose header is this frame; 0
    /// for any other frame.
    pub fn pieces(&self, header: usize) -> u32 {
        let is_header = self.frames.get(header).is_some_and(|frame| !frame.more);
        let behind = self.frames.iter().skip(header + 1).take_while(|frame| frame.more);
        if is_header { u32::try_from(behind.count()).unwrap_or(u32::MAX) } else { 0 }
    }

    /// What piece of a file this frame is.
    pub fn piece(&self, number: usize) -> Option<Piece> {
        let Frame { content, more: true, .. } = *self.frames.get(number)? else { return None };
        let header = self.frames[..number].iter().rposition(|frame| !frame.more)?;
        let before = self.frames[header + 1..number].iter();
        let offset = before.fold(0u64, |sum, frame| sum.saturating_add(frame.content));
        let last = self.frames.get(number + 1).is_none_or(|frame| !frame.more);
        Some(Piece { header, offset, content, last })
    }

    /// How many bytes all chunks have.
    pub fn compressed(&self) -> u64 {
        self.frames.last().map_or(0, Frame::end)
    }
}
