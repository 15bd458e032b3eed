//! What a regular file contains, and where it has holes.

use crate::sys;
use rustix::fs::{SeekFrom, fstatfs, seek};
use rustix::io::{Errno, pread};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The unit of comparison, whatever size the pages of the machine have.
const PAGE: usize = 4096;
const RAMFS_MAGIC: u32 = 0x8584_58f6;

/// The bytes of a file and its holes.
///
/// A hole and a page of zeros are equal bytes, so a sparse file of 1 TiB costs nothing. Each other page
/// counts with its position and a checksum of 64 bits, which is fast even on an emulated CPU, where SHA-256
/// over every byte is not.
#[derive(Clone, Eq, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256 over the length, and the position and checksum of each page that is not all zeros.
    #[serde(with = "crate::entry::hex")]
    pub digest: Vec<u8>,
    /// The parts that are not holes, as (start, end).
    pub data: Vec<(u64, u64)>,
    /// Position and checksum of each page that is not all zeros. Not part of the JSON.
    #[serde(skip)]
    pages: Vec<(u64, u64)>,
}

impl Content {
    /// Reads a file of `size` bytes, except its holes.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of(file: impl AsFd, size: u64) -> io::Result<Content> {
        let file = file.as_fd();
        let data = data_ranges(file, size)?;
        let mut pages = Vec::new();
        let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(1 << 20)];
        let mut at = 0;
        for &(start, end) in &data {
            // Whole pages, wherever the file system sees the border, so that equal files have equal
            // checksums.
            at = at.max(start - start % PAGE as u64);
            let end = end.next_multiple_of(PAGE as u64).min(size);
            while at < end {
                let len = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
                read_exactly(file, &mut buffer[..len], at)?;
                for page in buffer[..len].chunks(PAGE) {
                    if page.iter().any(|byte| *byte != 0) {
                        pages.push((at, checksum(page)));
                    }
                    at += page.len() as u64;
                }
            }
        }
        let mut digest = Sha256::new();
        for (at, checksum) in &pages {
            digest.update(at.to_le_bytes());
            digest.update(checksum.to_le_bytes());
        }
        digest.update(size.to_le_bytes());
        Ok(Content { digest: digest.finalize().to_vec(), data, pages })
    }

    /// Position and checksum of each page that is not all zeros. Empty for a snapshot that was read from
    /// JSON.
    #[must_use]
    pub fn pages(&self) -> &[(u64, u64)] {
        &self.pages
    }

    /// The checksum of the page at a position, unless the page is all zeros.
    #[must_use]
    pub fn checksum_at(&self, at: u64) -> Option<u64> {
        let index = self.pages.binary_search_by_key(&at, |page| page.0).ok()?;
        Some(self.pages[index].1)
    }

    /// The position of the first page that differs, or 0 if that is unknown. `None` if the bytes are equal.
    pub(crate) fn differs_at(&self, other: &Content) -> Option<u64> {
        if self.digest == other.digest {
            return None;
        }
        let equal = self.pages.iter().zip(&other.pages).take_while(|(one, other)| one == other).count();
        let at = |pages: &[(u64, u64)]| pages.get(equal).map(|page| page.0);
        Some(at(&self.pages).into_iter().chain(at(&other.pages)).min().unwrap_or(0))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: u64 = self.data.iter().map(|(start, end)| end - start).sum();
        write!(f, "{bytes} bytes of data at {:?}", self.data)
    }
}

/// The parts of a file of `size` bytes that are not holes, as (start, end).
///
/// # Errors
/// If the file system cannot report them.
pub fn data_ranges(file: impl AsFd, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let file = file.as_fd();
    // The magic is 32 bits wide. The field is signed on some machines.
    let ramfs = fstatfs(file)?.f_type.to_le_bytes()[..4] == RAMFS_MAGIC.to_le_bytes();
    if ramfs { ranges_in_memory(file, size) } else { ranges_by_seek(file, size) }
}

fn ranges_by_seek(file: BorrowedFd<'_>, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut data = Vec::new();
    let mut end = 0;
    while end < size {
        let start = match seek(file, SeekFrom::Data(end)) {
            Ok(start) => start,
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        end = seek(file, SeekFrom::Hole(start))?;
        data.push((start, end));
    }
    Ok(data)
}

/// ramfs reports the whole file as data. What it really has is what is in the page cache.
fn ranges_in_memory(file: BorrowedFd<'_>, size: u64) -> io::Result<Vec<(u64, u64)>> {
    const WINDOW: u64 = 1 << 30;
    let size_of_page = sys::page_size();
    let mut data: Vec<(u64, u64)> = Vec::new();
    let mut from = 0;
    while from < size {
        let len = WINDOW.min(size - from);
        for (page, present) in (0..).zip(sys::resident(file, from, len)?) {
            let start = from + page * size_of_page;
            let end = (start + size_of_page).min(size);
            match data.last_mut() {
                _ if !present => {}
                Some(last) if last.1 == start => last.1 = end,
                _ => data.push((start, end)),
            }
        }
        from += len;
    }
    Ok(data)
}

fn read_exactly(file: BorrowedFd<'_>, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match pread(file, &mut *buffer, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                at += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Each step maps different sums to different sums, so a single changed word always changes the result.
fn checksum(page: &[u8]) -> u64 {
    page.chunks(8).fold(page.len() as u64, |sum, word| {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        (sum ^ u64::from_le_bytes(bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn every_byte_and_its_position_change_the_checksum() {
        let page = [7u8; 4095];
        for at in [0, 1, 8, 4094] {
            let mut other = page;
            other[at] ^= 1;
            assert_ne!(checksum(&page), checksum(&other), "byte {at}");
        }
        let (mut one, mut other) = (page, page);
        (one[0], other[8]) = (1, 1);
        assert_ne!(checksum(&one), checksum(&other));
        assert_ne!(checksum(&page), checksum(&page[..4088]));
    }
}
