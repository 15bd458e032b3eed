//! Large files that several threads write at once, each a piece of its own.

use alloc::vec::Vec;

use crate::error::Fault;
use crate::sys::Mutex;

/// The files that are begun and not yet whole: no more than there are threads, since frames are taken in
/// their order.
#[derive(Debug)]
pub(super) struct Begun(Mutex<Vec<File>>);

#[derive(Debug)]
struct File {
    /// The frame with its header.
    header: usize,
    /// How many pieces are still to be written.
    left: u32,
}

impl Begun {
    /// None yet; for so many threads nothing is allocated later.
    pub(super) fn new(threads: u32) -> Self {
        Begun(Mutex::new(Vec::with_capacity(usize::try_from(threads).unwrap_or(1))))
    }

    /// Opens a file of so many pieces: whoever comes first makes it.
    pub(super) fn open<F>(
        &self,
        header: usize,
        pieces: u32,
        open: impl FnOnce(bool) -> Result<F, Fault>,
    ) -> Result<F, Fault> {
        // Held while the file is made, for the others to find it there.
        let mut files = self.0.lock();
        let first = files.iter().all(|file| file.header != header);
        let opened = open(first)?;
        if first {
            files.push(File { header, left: pieces });
        }
        Ok(opened)
    }

    /// Says that one more piece is there; whether that was the last.
    pub(super) fn done(&self, header: usize) -> bool {
        let mut files = self.0.lock();
        let Some(at) = files.iter().position(|file| file.header == header) else { return false };
        files[at].left -= 1;
        let whole = files[at].left == 0;
        if whole {
            files.swap_remove(at);
        }
        whole
    }
}
