//! One member of a tar archive, and the part of the file that it is read from.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use tar::Entry;

use super::pax::Records;

/// One member of an archive, with its records.
pub(super) struct Member<'a, 'b> {
    /// The entry of the tar crate.
    pub(super) entry: &'a mut Entry<'b, Range>,
    /// Its name.
    pub(super) path: Vec<u8>,
    /// The target of a link.
    pub(super) target: Option<Vec<u8>>,
    /// The PAX records.
    pub(super) records: Records,
    /// Offset of its data.
    pub(super) position: u64,
}

impl<'a, 'b> Member<'a, 'b> {
    pub(super) fn new(entry: &'a mut Entry<'b, Range>, records: Records, position: u64) -> Member<'a, 'b> {
        let record = |wanted: &[u8]| {
            let found = records.iter().rfind(|(key, value)| key == wanted && !value.is_empty());
            found.map(|(_, value)| value.clone())
        };
        let path = record(b"path").unwrap_or_else(|| entry.path_bytes().into_owned());
        let target = record(b"linkpath").or_else(|| Some(entry.link_name_bytes()?.into_owned()));
        Member { entry, path, target, records, position }
    }
}

/// Part of a file, read without moving its position.
#[derive(Debug)]
pub struct Range {
    file: Arc<File>,
    offset: u64,
    left: u64,
    budget: Budget,
}

/// Number of bytes that may be read from a [`Range`] until its owner allows more.
#[derive(Debug, Clone)]
pub(super) struct Budget(Rc<Cell<u64>>);

impl Budget {
    pub(super) fn set(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

impl Range {
    /// `len` bytes from `offset` on, with no budget.
    pub(super) fn new(file: Arc<File>, offset: u64, left: u64) -> Range {
        Range { file, offset, left, budget: Budget(Rc::new(Cell::new(u64::MAX))) }
    }

    /// The budget of this range, to be changed while the range is read.
    pub(super) fn budget(&self) -> Budget {
        self.budget.clone()
    }
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut buffer[..want], self.offset)?;
        let rest = self.budget.0.get().checked_sub(got as u64);
        self.budget.set(rest.ok_or_else(|| io::Error::other("names or records are too long"))?);
        self.offset += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

impl Seek for Range {
    /// Only seeks forward, relative to the current position, as the tar crate does.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Current(step) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        let step = u64::try_from(step).map_err(|_| io::ErrorKind::Unsupported)?.min(self.left);
        self.offset += step;
        self.left -= step;
        Ok(self.offset)
    }
}

/// A path without `./` at its start and slashes at its end.
pub(super) fn plain(path: &[u8]) -> &[u8] {
    let mut path = path;
    while let Some(rest) = path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")) {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/").or_else(|| path.strip_suffix(b"/.")) {
        path = rest;
    }
    if path == b"." { b"" } else { path }
}
