//! A ring of memory: blocks are written in order, and pieces of them are read until they are dropped.

use std::collections::VecDeque;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A ring for blocks of one size at most.
#[derive(Debug)]
pub(super) struct Ring {
    memory: Arc<Memory>,
    block: usize,
    /// The place of the next block, and how many of the bytes before it are in no piece yet.
    at: usize,
    fresh: usize,
    /// The pieces that somebody may still read.
    read: VecDeque<Arc<Piece>>,
}

/// Bytes of a ring. While this exists, they stay.
#[derive(Debug)]
pub(crate) struct Piece {
    memory: Arc<Memory>,
    start: usize,
    len: usize,
}

#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: all access is through pieces, which nobody writes, and through what `Ring::next` returns, where no
// piece is.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: it is inside the memory, which has been zeros from the start, and nobody writes it before
        // this is dropped.
        unsafe { std::slice::from_raw_parts(self.memory.start.add(self.start).as_ptr(), self.len) }
    }
}

impl Ring {
    /// A ring of `size` bytes: at least two blocks.
    pub(super) fn new(block: usize, size: usize) -> io::Result<Ring> {
        let memory = Arc::new(Memory::new(size.max(2 * block))?);
        Ok(Ring { memory, block, at: 0, fresh: 0, read: VecDeque::new() })
    }

    /// The size of a block at most.
    pub(super) fn block(&self) -> usize {
        self.block
    }

    /// The place of the next block, if nobody reads there.
    pub(super) fn next(&mut self) -> Option<NonNull<u8>> {
        // Whoever has dropped a piece has read it.
        while self.read.front_mut().is_some_and(|piece| Arc::get_mut(piece).is_some()) {
            self.read.pop_front();
        }
        let (start, end) = (self.at, self.at + self.block);
        // Without room before the end, `take` comes first.
        let is_free = end <= self.memory.size
            && self.read.iter().all(|piece| piece.start + piece.len <= start || piece.start >= end);
        // SAFETY: a block fits there.
        is_free.then(|| unsafe { self.memory.start.add(start) })
    }

    /// So many bytes, of a block at most, have been written at the next place.
    pub(super) fn advance(&mut self, count: usize) {
        assert!(count <= self.block);
        self.at += count;
        self.fresh += count;
    }

    /// The bytes that are in no piece yet, if there are so many, or if the ring ends behind them.
    pub(super) fn take(&mut self, least: usize) -> Option<Arc<Piece>> {
        let ends = self.at + self.block > self.memory.size;
        if self.fresh < if ends { 1 } else { least } {
            return None;
        }
        let (start, len) = (self.at - self.fresh, self.fresh);
        self.fresh = 0;
        if ends {
            self.at = 0;
        }
        let piece = Arc::new(Piece { memory: self.memory.clone(), start, len });
        self.read.push_back(piece.clone());
        Some(piece)
    }
}

impl Memory {
    fn new(size: usize) -> io::Result<Memory> {
        // SAFETY: the kernel chooses a place where nothing is.
        let start = unsafe {
            mmap_anonymous(ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // Matches are anywhere in the window: with small pages, decompressing took 3 and 9 % longer.
        // SAFETY: advice changes nothing but the time.
        let _ = unsafe { madvise(start.as_ptr().cast(), size, Advice::LinuxHugepage) };
        Ok(Memory { start, size })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: no ring and no piece is left.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes blocks into a ring, and checks what comes out while up to `held` pieces are kept.
    fn through(size: usize, block: usize, held: usize) {
        let mut ring = Ring::new(block, size).unwrap();
        let bytes: Vec<u8> =
            (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (mut kept, mut out) = (VecDeque::<Arc<Piece>>::new(), 0);
        let mut check = |piece: Arc<Piece>| {
            assert!((*piece).as_ref() == &bytes[out..out + piece.len]);
            out += piece.len;
        };
        for part in bytes.chunks(block) {
            while kept.len() > held {
                check(kept.pop_front().unwrap());
            }
            let place = loop {
                if let Some(place) = ring.next() {
                    break place;
                }
                check(kept.pop_front().unwrap());
            };
            // SAFETY: a block has room.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), place.as_ptr(), part.len()) };
            ring.advance(part.len());
            kept.extend(ring.take(2 * block));
        }
        kept.extend(ring.take(1));
        kept.into_iter().for_each(&mut check);
        assert_eq!(out, bytes.len());
    }

    #[test]
    fn everything_comes_out_once() {
        for (size, block, held) in
            [(1, 7000, 0), (100_000, 30_000, 1), (200_000, 777, 100), (4 << 20, 65536, 9)]
        {
            through(size, block, held);
        }
    }

    #[test]
    fn a_piece_that_is_held_is_not_written_over() {
        let mut ring = Ring::new(40_000, 100_000).unwrap();
        for byte in [7, 8] {
            // SAFETY: a block has room.
            unsafe { ring.next().unwrap().write_bytes(byte, 40_000) };
            ring.advance(40_000);
        }
        let piece = ring.take(1).unwrap();
        assert!(ring.next().is_none());
        assert!((*piece).as_ref()[..40_000] == [7; 40_000] && (*piece).as_ref()[40_000..] == [8; 40_000]);
        drop(piece);
        assert!(ring.next().is_some());
    }
}
