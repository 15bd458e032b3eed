//! Reading the contents of a file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::{Contents, Seen, Sparse};

impl Contents {
    /// The whole file.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        self.head(self.len())
    }

    /// The first bytes, `limit` at most.
    pub fn head(&self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open()?.take(limit.min(self.len())).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A reader from the first byte. If the size of a file on disk has changed, it is an error.
    pub(crate) fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        self.open_at(0)
    }

    /// A reader from an offset. For any offset but 0, a changed inode or modification time is an error too.
    pub(crate) fn open_at(&self, from: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Contents::Bytes(bytes) => {
                let from = usize::try_from(from).unwrap_or(usize::MAX);
                Box::new(bytes.get(from..).unwrap_or_default())
            }
            Contents::Disk(beneath, path, seen) => {
                let mut file = File::from(beneath.file(path)?);
                let now = file.metadata()?;
                let now_seen =
                    Seen { size: now.len(), inode: now.ino(), modified: (now.mtime(), now.mtime_nsec()) };
                // Pieces that are read one by one must belong to the same version of the file.
                let same = if from == 0 { now.len() == seen.size } else { now_seen == *seen };
                if !now.is_file() || !same {
                    return Err(io::Error::other("the file has changed since its directory was read"));
                }
                file.seek(SeekFrom::Start(from))?;
                Box::new(file)
            }
            Contents::Sparse(sparse) => Box::new(Holes { sparse, offset: from }),
            Contents::Range(file, offset, _) => Box::new(At { file, offset: offset + from }),
            Contents::Size(_) => return Err(io::Error::other("the contents are not available")),
        })
    }
}

/// Reads a file from an offset, without moving its position.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buffer, self.offset)?;
        self.offset += got as u64;
        Ok(got)
    }
}

/// Reads a sparse file: zeros where it has no data.
struct Holes<'a> {
    sparse: &'a Sparse,
    offset: u64,
}

impl Read for Holes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Sparse { file, size, extents } = self.sparse;
        let next = extents.partition_point(|extent| extent.offset + extent.length <= self.offset);
        let (end, data) = match extents.get(next) {
            Some(extent) if extent.offset <= self.offset => (extent.offset + extent.length, Some(extent)),
            Some(extent) => (extent.offset, None),
            None => (*size, None),
        };
        let left = usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let want = left.min(buffer.len());
        let got = match data {
            Some(extent) => {
                file.read_at(&mut buffer[..want], extent.position + self.offset - extent.offset)?
            }
            None => {
                buffer[..want].fill(0);
                want
            }
        };
        self.offset += got as u64;
        Ok(got)
    }
}
