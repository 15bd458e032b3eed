//! File contents: copies a range, and finds the parts of it that are not holes.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{SeekFrom, seek, sendfile};
use rustix::io::{Errno, pread, pwrite};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::error::{Call, Fault};

/// The size of a chunk, in bytes. At most this much of a file is in memory twice per worker.
pub const CHUNK: u64 = 1 << 20;

/// Buffer size for copying with read and write, in bytes; it fits in a CPU's cache.
const BUFFER: usize = 64 * 1024;

/// Bytes that sendfile writes per step: the capacity of its internal pipe.
const AT_ONCE: u64 = 64 * 1024;

/// The capacity of our own pipe, in bytes: the maximum for unprivileged users (`pipe-max-size`).
const PIPE: usize = 1 << 20;

/// The buffers that a thread copies with, allocated on first use.
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

    /// An empty pipe; `None` if none can be made. The caller puts it back only while it is empty.
    fn pipe(&mut self) -> Option<Pipe> {
        self.pipe.take().or_else(|| Pipe::new().ok())
    }
}

/// A pipe for splice(2). It holds references to pages of the source file.
#[derive(Debug)]
struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    fn new() -> Result<Pipe, Errno> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // A smaller pipe only needs more calls.
        let _ = fcntl_setpipe_size(&writer, PIPE);
        Ok(Pipe { reader, writer })
    }

    /// Copies the range from `at` to `end`. If that fails, `at` is where it stopped, and the pipe may not be
    /// empty.
    fn copy(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, at: &mut u64, end: u64) -> Result<(), Errno> {
        while *at < end {
            let length = usize::try_from(end - *at).unwrap_or(usize::MAX).min(PIPE);
            let mut in_pipe =
                match splice(from, Some(&mut at.clone()), &self.writer, None, length, SpliceFlags::empty()) {
                    Ok(0) => return Err(Errno::IO),
                    Err(Errno::INTR) => continue,
                    other => other?,
                };
            while in_pipe > 0 {
                match splice(&self.reader, None, to, Some(at), in_pipe, SpliceFlags::empty()) {
                    Ok(0) => return Err(Errno::IO),
                    Err(Errno::INTR) => {}
                    other => in_pipe -= other?,
                }
            }
        }
        Ok(())
    }
}

/// The file to write to, and the file offset of its descriptor: sendfile writes there.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    file: BorrowedFd<'a>,
    position: u64,
}

impl<'a> Target<'a> {
    /// A file that has just been opened.
    pub(crate) fn new(file: BorrowedFd<'a>) -> Self {
        Target { file, position: 0 }
    }

    /// A file whose offset is unknown, because other threads use the descriptor too.
    pub(crate) fn shared(file: BorrowedFd<'a>) -> Self {
        Target { file, position: u64::MAX }
    }
}

/// Copies a range from one file to the same offset of another.
///
/// `sendfile` copies once, from page cache to page cache, and is the fastest way for anything above one page
/// (`cargo xtask bench copy`). Ranges above [`AT_ONCE`] go through our own, larger pipe: when a write is
/// smaller than the folio, the kernel first fills the rest of the folio with zeros (`shmem_write_end`).
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
                return copy_through_buffer(buffer, from, to.file, at..range.end);
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
                return copy_through_buffer(buffer, from, to.file, at..range.end);
            }
            Err(error) => return Err(error).call("sendfile"),
        }
    }
    Ok(())
}

/// Copies with pread(2) and pwrite(2), for files that neither splice(2) nor sendfile(2) supports.
fn copy_through_buffer(
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
            // The file shrank while it was read.
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

/// Overwrites a range with zeros.
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
