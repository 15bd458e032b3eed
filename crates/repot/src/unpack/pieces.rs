//! Large files that several workers write at the same time, each a different piece.

use alloc::vec::Vec;

use crate::error::Fault;
use crate::sys::Mutex;

/// The large files that are partly written: at most one per worker, because frames are taken in order.
#[derive(Debug)]
pub(super) struct OpenFiles(Mutex<Vec<File>>);

#[derive(Debug)]
struct File {
    /// The number of the frame with its header.
    header: usize,
    /// The number of pieces still to be written.
    missing: u32,
}

impl OpenFiles {
    /// No files yet, with room for one per thread, so that nothing is allocated later.
    pub(super) fn new(threads: u32) -> Self {
        OpenFiles(Mutex::new(Vec::with_capacity(usize::try_from(threads).unwrap_or(1))))
    }

    /// Opens a file with this number of pieces. `open(true)` must create it; only the first caller gets that.
    pub(super) fn open<F>(
        &self,
        header: usize,
        pieces: u32,
        open: impl FnOnce(bool) -> Result<F, Fault>,
    ) -> Result<F, Fault> {
        // The lock is held while the file is created, so that the other workers find it.
        let mut files = self.0.lock();
        let first = files.iter().all(|file| file.header != header);
        let opened = open(first)?;
        if first {
            files.push(File { header, missing: pieces });
        }
        Ok(opened)
    }

    /// Notes that one more piece was written. Returns whether it was the last.
    pub(super) fn done(&self, header: usize) -> bool {
        let mut files = self.0.lock();
        let Some(at) = files.iter().position(|file| file.header == header) else { return false };
        files[at].missing -= 1;
        let complete = files[at].missing == 0;
        if complete {
            files.swap_remove(at);
        }
        complete
    }
}
