//! What a regular file holds, and where.
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, fstatfs, seek};
use rustix::io::Errno;

use crate::sys;

const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];
const RAMFS_MAGIC: u32 = 0x8584_58f6;

/// Positions of pages, and their bytes one after the other: compared whole, which is faster than any digest.
type Pages = (Vec<u64>, Vec<u8>);

/// The bytes of a file and its holes.
#[derive(Clone, Eq, PartialEq)]
pub struct Content {
    /// Every page that is not all zeros, by position: the same wherever the holes are.
    pages: Pages,
    /// Where the file has data, as (start, end): the rest is holes.
    pub data: Vec<(u64, u64)>,
}

impl Content {
    /// Reads `file`, of length `size`, without reading its holes: on ramfs that would fill them.
    pub(crate) fn of(file: &OwnedFd, size: u64) -> io::Result<Content> {
        // The magic is 32 bits wide; the field is signed on some machines.
        let ramfs = fstatfs(file)?.f_type.to_le_bytes()[..4] == RAMFS_MAGIC.to_le_bytes();
        let data = if ramfs { present(file, size)? } else { segments(file, size)? };
        let reader = File::from(file.try_clone()?);
        let mut pages = Pages::default();
        let mut buffer = vec![0; 1 << 20];
        for &(start, end) in &data {
            let mut at = start;
            while at < end {
                let most = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
                reader.read_exact_at(&mut buffer[..most], at)?;
                for page in buffer[..most].chunks(PAGE) {
                    if page != &ZEROS[..page.len()] {
                        pages.0.push(at);
                        pages.1.extend_from_slice(page);
                    }
                    at += page.len() as u64;
                }
            }
        }
        Ok(Content { pages, data })
    }
}

/// What the file system says is data.
fn segments(file: &OwnedFd, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut data = vec![];
    let mut end = 0;
    while end < size {
        let start = match seek(file, SeekFrom::Data(end)) {
            Ok(start) => start,
            // How the kernel says that only a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        end = seek(file, SeekFrom::Hole(start))?;
        data.push((start, end));
    }
    Ok(data)
}

/// ramfs calls the whole file data; what it really has is what is in the page cache.
fn present(file: &OwnedFd, size: u64) -> io::Result<Vec<(u64, u64)>> {
    const WINDOW: u64 = 1 << 30;
    let mut data: Vec<(u64, u64)> = vec![];
    let mut from = 0;
    while from < size {
        let len = WINDOW.min(size - from);
        for (page, present) in (0..).zip(sys::pages_present(file.as_fd(), from, len)?) {
            let start = from + page * PAGE as u64;
            let end = (start + PAGE as u64).min(size);
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

impl Content {
    /// The pages that are not all zeros, with their positions.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        // Only the last page of a file can be short, and it is the last here.
        self.pages.0.iter().copied().zip(self.pages.1.chunks(PAGE))
    }

    /// The page at a position, if it is not all zeros.
    #[must_use]
    pub fn page(&self, at: u64) -> Option<&[u8]> {
        let index = self.pages.0.binary_search(&at).ok()?;
        self.pages.1.chunks(PAGE).nth(index)
    }

    /// The first position at which the bytes differ, if any does.
    #[must_use]
    pub fn differs_at(&self, other: &Content) -> Option<u64> {
        if self.pages == other.pages {
            return None;
        }
        let (ours, theirs) = (self.pages.0.iter(), other.pages.0.iter());
        let same = ours.zip(theirs).take_while(|(a, b)| a == b).count();
        let bytes = self.pages.1.iter().zip(&other.pages.1).take_while(|(a, b)| a == b).count();
        let page = same.min(bytes / PAGE);
        let at = |pages: &Pages| pages.0.get(page).copied().unwrap_or(u64::MAX);
        Some(at(&self.pages).min(at(&other.pages)))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of data at {:?}", self.pages.1.len(), self.data)
    }
}
