//! Finds the parts of a sparse file that are not holes, in a time that depends on the data, not on the
//! length.

use core::ops::Range;

use rustix::fd::BorrowedFd;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::data::CHUNK;
use crate::error::{Call, Fault};
use crate::sys;

/// How to find the holes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holes {
    /// `SEEK_DATA` and `SEEK_HOLE` (tmpfs, since 3.8).
    Seek,
    /// By the pages in the page cache: ramfs has no `SEEK_DATA`, and reading a hole there allocates a page.
    PageCache,
}

/// Bytes whose pages mincore(2) reports at a time. One byte of its map stands for one page, so the map takes
/// at most 16 KiB.
const STRETCH: u64 = 64 << 20;

/// Calls `visit` with each part of the range that is not a hole, in ascending order.
pub(crate) fn data_ranges(
    holes: Holes,
    file: BorrowedFd<'_>,
    range: Range<u64>,
    mut visit: impl FnMut(Range<u64>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    match holes {
        Holes::Seek => {
            let mut at = range.start;
            while let Some(start) = next_data(file, at)?.filter(|start| *start < range.end) {
                let end = seek(file, SeekFrom::Hole(start)).call("lseek SEEK_HOLE")?.min(range.end);
                visit(start..end)?;
                at = end;
            }
        }
        Holes::PageCache => {
            let mut start = range.start;
            let mut step = STRETCH;
            while start < range.end {
                let end = range.end.min(start.saturating_add(step));
                match sys::count_cached_pages(file, start, end - start) {
                    Some(0) => {
                        start = end;
                        step = step.saturating_mul(2);
                    }
                    Some(_) if step > STRETCH => step /= 2,
                    _ => {
                        each_cached(file, start..end, &mut visit)?;
                        start = end;
                    }
                }
            }
        }
    }
    Ok(())
}

/// The first offset from `at` on that is no hole, by `SEEK_DATA`.
pub(super) fn next_data(file: BorrowedFd<'_>, at: u64) -> Result<Option<u64>, Fault> {
    match seek(file, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => Ok(None),
        found => found.call("lseek SEEK_DATA").map(Some),
    }
}

/// Calls `visit` with each run of pages in the page cache. The range is at most a [`STRETCH`] long.
fn each_cached(
    file: BorrowedFd<'_>,
    range: Range<u64>,
    visit: &mut impl FnMut(Range<u64>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let map = sys::cached_pages(file, range.start, range.end - range.start).call("mincore")?;
    let mut at = range.start;
    for run in map.chunk_by(|a, b| a & 1 == b & 1) {
        let next = range.end.min(at + run.len() as u64 * sys::page_size());
        if run[0] & 1 == 1 {
            visit(at..next)?;
        }
        at = next;
    }
    Ok(())
}

/// Finds the data of a file from its end to its start, as the file shrinks.
#[derive(Debug)]
pub(super) struct FromEnd {
    holes: Holes,
    /// Allocated bytes that were not moved yet.
    left: u64,
    /// Without `cachestat`, how far the file was read from its start, and the allocated bytes found there.
    known: (u64, u64),
    /// The end of the last of them.
    last: u64,
}

impl FromEnd {
    /// Of a file with `allocated` bytes that are no holes.
    pub(super) fn new(holes: Holes, allocated: u64) -> FromEnd {
        FromEnd { holes, left: allocated, known: (0, 0), last: 0 }
    }

    /// Notes that this many bytes were moved.
    pub(super) fn moved(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// An end of data below `end`, exact to a chunk; `None` if all of that is a hole.
    pub(super) fn below(&mut self, file: BorrowedFd<'_>, end: u64) -> Result<Option<u64>, Fault> {
        if self.holes == Holes::Seek {
            return last(end, |part| Ok(next_data(file, part.start)?.is_some_and(|found| found < part.end)));
        }
        if self.left == 0 {
            return Ok(None);
        }
        if sys::count_cached_pages(file, 0, 1).is_none() {
            return self.below_by_map(file, end);
        }
        let count = |part: Range<u64>| sys::count_cached_pages(file, part.start, part.end - part.start);
        last(end, |part| Ok(count(part) != Some(0)))
    }

    /// Without `cachestat`, time depends on the length. Data is often near the start or near the end, so both
    /// are read in turn until all allocated bytes are known.
    fn below_by_map(&mut self, file: BorrowedFd<'_>, mut end: u64) -> Result<Option<u64>, Fault> {
        loop {
            let (to, bytes) = self.known;
            if bytes >= self.left || to >= end {
                return Ok(Some(self.last.min(end)).filter(|last| *last > 0));
            }
            let next = end.min(to.saturating_add(STRETCH));
            let mut found = bytes;
            each_cached(file, to..next, &mut |part| {
                found += (part.end - part.start).next_multiple_of(sys::page_size());
                self.last = part.end;
                Ok(())
            })?;
            self.known = (next, found);
            let start = (end - 1) / STRETCH * STRETCH;
            let mut highest = None;
            each_cached(file, start..end, &mut |part| {
                highest = Some(part.end);
                Ok(())
            })?;
            if highest.is_some() || start == 0 {
                return Ok(highest);
            }
            end = start;
        }
    }
}

/// The end of the last chunk below `end` of which `has_data` is true. It is asked about ever larger parts
/// first, and then about halves: once for each chunk of a file without holes.
fn last(end: u64, has_data: impl Fn(Range<u64>) -> Result<bool, Fault>) -> Result<Option<u64>, Fault> {
    let (mut high, mut step) = (end, 1);
    let mut low = loop {
        if high == 0 {
            return Ok(None);
        }
        let low = high.div_ceil(CHUNK).saturating_sub(step) * CHUNK;
        if has_data(low..high)? {
            break low;
        }
        high = low;
        step = step.saturating_mul(2);
    };
    while high - low > CHUNK {
        let middle = low + (high - low) / 2 / CHUNK * CHUNK;
        let middle = middle.max(low + CHUNK);
        if has_data(middle..high)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Some(high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    /// `last` with chunks that hold data, and how often it asked.
    fn found(end: u64, data: &[u64]) -> (Option<u64>, u32) {
        let asked = Cell::new(0);
        let has = |part: Range<u64>| {
            asked.set(asked.get() + 1);
            Ok(data.iter().any(|chunk| (part.start..part.end).contains(&(chunk * CHUNK))))
        };
        (last(end, has).unwrap(), asked.get())
    }

    #[test]
    fn the_last_chunk_with_data_is_found_in_few_steps() {
        const LARGEST: u64 = i64::MAX as u64;
        for end in [1, 7, CHUNK, CHUNK + 1, 9 * CHUNK, 16 << 40, LARGEST] {
            assert_eq!(found(end, &[]).0, None, "{end}");
            let chunks = end.div_ceil(CHUNK);
            for chunk in [0, 1, 2, 3, chunks / 3, chunks / 2, chunks - 1] {
                if chunk >= chunks {
                    continue;
                }
                let (at, asked) = found(end, &[0, chunk / 2, chunk]);
                assert_eq!(at, Some(end.min((chunk + 1) * CHUNK)), "{end} {chunk}");
                assert!(asked < 100, "{asked}");
            }
        }
        assert_eq!(found(3 * CHUNK, &[0, 1, 2]), (Some(3 * CHUNK), 1));
    }
}
