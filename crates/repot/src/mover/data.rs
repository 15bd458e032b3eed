//! The bytes of a file: copying a range, and finding the parts of it that are not holes.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{SeekFrom, seek, sendfile};
use rustix::io::{Errno, pread, pwrite};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::error::{Call, Fault};
use crate::sys;

/// At most this much of a file is in memory twice, in bytes.
pub const CHUNK: u64 = 1 << 20;

/// How a file system tells where a file has holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holes {
    /// `SEEK_DATA` and `SEEK_HOLE` (tmpfs, since 3.8).
    Seek,
    /// Only by what is in the page cache: ramfs calls all of a file data, and reading a hole fills it.
    PageCache,
}

/// What is read and written at once where the kernel cannot copy by itself, in bytes; it stays in a
/// processor's cache.
const BUFFER: usize = 64 * 1024;

/// What sendfile writes at once, in bytes: what fits into the pipe that the kernel has for it.
const AT_ONCE: u64 = 64 * 1024;

/// What a pipe of our own holds, in bytes: as much as everybody may have (`pipe-max-size`).
const PIPE: usize = 1 << 20;

/// What a thread copies with: each is there when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pipe: Option<Pipe>,
}

impl Buffer {
    fn bytes(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = vec![0; BUFFER];
        }
        &mut self.bytes
    }

    /// An empty pipe, to be put back while it is; none where there is none to be had.
    fn pipe(&mut self) -> Option<Pipe> {
        self.pipe.take().or_else(|| Pipe::new().ok())
    }
}

/// What the kernel copies through: it holds pages of the file that is read.
#[derive(Debug)]
struct Pipe {
    outlet: OwnedFd,
    inlet: OwnedFd,
}

impl Pipe {
    fn new() -> Result<Pipe, Errno> {
        let (outlet, inlet) = pipe_with(PipeFlags::CLOEXEC)?;
        // A smaller one only takes more calls.
        let _ = fcntl_setpipe_size(&inlet, PIPE);
        Ok(Pipe { outlet, inlet })
    }

    /// Copies what lies between `at` and `end`. Where that fails, `at` tells how far it came, and the pipe
    /// may not be empty.
    fn copy(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, at: &mut u64, end: u64) -> Result<(), Errno> {
        while *at < end {
            let length = usize::try_from(end - *at).unwrap_or(usize::MAX).min(PIPE);
            let mut held =
                match splice(from, Some(&mut at.clone()), &self.inlet, None, length, SpliceFlags::empty()) {
                    Ok(0) => return Err(Errno::IO),
                    Err(Errno::INTR) => continue,
                    other => other?,
                };
            while held > 0 {
                match splice(&self.outlet, None, to, Some(at), held, SpliceFlags::empty()) {
                    Ok(0) => return Err(Errno::IO),
                    Err(Errno::INTR) => {}
                    other => held -= other?,
                }
            }
        }
        Ok(())
    }
}

/// A file that is written to, and where its descriptor stands: the kernel copies to there.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    file: BorrowedFd<'a>,
    position: u64,
}

impl<'a> Target<'a> {
    /// A file that was opened and not used since.
    pub(crate) fn new(file: BorrowedFd<'a>) -> Self {
        Target { file, position: 0 }
    }

    /// A file whose descriptor may stand anywhere, since others use it too.
    pub(crate) fn anywhere(file: BorrowedFd<'a>) -> Self {
        Target { file, position: u64::MAX }
    }
}

/// Copies a range from one file to the same place of another.
///
/// `sendfile` copies once, from page cache to page cache, and is the fastest way for what is larger than a
/// page (`cargo xtask bench copy`). What is larger than its pipe goes through a pipe of our own: the rest of
/// a folio that is larger than what is written at once is filled with zeros first (`shmem_write_end`).
pub(crate) fn copy(
    buffer: &mut Buffer,
    from: BorrowedFd<'_>,
    to: &mut Target<'_>,
    range: Range<u64>,
) -> Result<(), Fault> {
    let mut at = range.start;
    if range.end - at > AT_ONCE
        && let Some(pipe) = buffer.pipe()
    {
        match pipe.copy(from, to.file, &mut at, range.end) {
            Ok(()) => buffer.pipe = Some(pipe),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(buffer, from, to.file, at..range.end);
            }
            Err(error) => return Err(error).call("splice"),
        }
    }
    while at < range.end {
        if to.position != at {
            to.position = seek(to.file, SeekFrom::Start(at)).call("lseek")?;
        }
        let length = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        match sendfile(to.file, from, Some(&mut at), length) {
            Ok(0) => return Err(Errno::IO).call("sendfile"),
            Ok(count) => to.position += count as u64,
            Err(Errno::INTR) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(buffer, from, to.file, at..range.end);
            }
            Err(error) => return Err(error).call("sendfile"),
        }
    }
    Ok(())
}

fn copy_by_hand(
    buffer: &mut Buffer,
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    range: Range<u64>,
) -> Result<(), Fault> {
    let mut at = range.start;
    while at < range.end {
        let buffer = buffer.bytes();
        let length = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(buffer.len());
        let count = match pread(from, &mut buffer[..length], at) {
            // The file has become shorter while it was read.
            Ok(0) => return Err(Errno::IO).call("pread64"),
            Err(Errno::INTR) => continue,
            other => other.call("pread64")?,
        };
        let mut written = 0;
        while written < count {
            match pwrite(to, &buffer[written..count], at + written as u64) {
                Ok(0) => return Err(Errno::NOSPC).call("pwrite64"),
                Err(Errno::INTR) => {}
                other => written += other.call("pwrite64")?,
            }
        }
        at += count as u64;
    }
    Ok(())
}

/// Overwrites a range.
pub(crate) fn zero(file: BorrowedFd<'_>, range: Range<u64>) -> Result<(), Fault> {
    let zeros = [0; 4096];
    let mut at = range.start;
    while at < range.end {
        let length = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(zeros.len());
        match pwrite(file, &zeros[..length], at) {
            Ok(0) => return Err(Errno::NOSPC).call("pwrite64"),
            Err(Errno::INTR) => {}
            other => at += other.call("pwrite64")? as u64,
        }
    }
    Ok(())
}

/// Calls `visit` with each part of the range that is not a hole, in order.
pub(crate) fn parts(
    holes: Holes,
    file: BorrowedFd<'_>,
    range: Range<u64>,
    mut visit: impl FnMut(Range<u64>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    match holes {
        Holes::Seek => {
            let mut at = range.start;
            while at < range.end {
                let start = match seek(file, SeekFrom::Data(at)) {
                    Err(Errno::NXIO) => break,
                    found => found.call("lseek SEEK_DATA")?,
                };
                if start >= range.end {
                    break;
                }
                let end = seek(file, SeekFrom::Hole(start)).call("lseek SEEK_HOLE")?.min(range.end);
                visit(start..end)?;
                at = end;
            }
        }
        Holes::PageCache => {
            // One byte of the map stands for a page.
            const STRETCH: u64 = 64 << 20;
            let page = sys::page_size();
            let mut start = range.start;
            while start < range.end {
                let end = range.end.min(start.saturating_add(STRETCH));
                let map = sys::cached_pages(file, start, end - start).call("mincore")?;
                let mut at = start;
                for run in map.chunk_by(|a, b| a & 1 == b & 1) {
                    let next = end.min(at + run.len() as u64 * page);
                    if run[0] & 1 == 1 {
                        visit(at..next)?;
                    }
                    at = next;
                }
                start = end;
            }
        }
    }
    Ok(())
}
