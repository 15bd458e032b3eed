//! One member of a tar archive.

use repot::payload::archive::pax;

use super::header::{Dialect, Header};
use crate::source::pax::{Records, last};
use crate::tree::Extent;

/// One member of an archive, with its records.
#[derive(Debug)]
pub struct Member {
    /// Its header.
    pub(super) header: Header,
    /// Its name, as the archive has it.
    pub name: Vec<u8>,
    /// The target of a link.
    pub target: Vec<u8>,
    /// The PAX records, the global ones first.
    pub records: Records,
    /// ACLs as Solaris writes them, in members of their own.
    pub solaris_acls: Vec<Vec<u8>>,
    /// Offset of its data.
    pub position: u64,
    /// Bytes of data in the archive.
    pub stored: u64,
    /// The size of a sparse file and its pieces.
    pub sparse: Option<(u64, Vec<Extent>)>,
}

impl Member {
    /// The type of the member, as in its header.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.header.kind_of(&self.name)
    }

    /// Whether it is the rest of a file that begins in another volume. In PAX archives global records say so.
    #[must_use]
    pub fn continues(&self) -> bool {
        let offset = self.record(b"GNU.volume.offset").is_some_and(|offset| offset != b"0");
        self.kind() == b'M' || offset && self.record(b"GNU.volume.filename") == Some(&self.name)
    }

    /// The bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.sparse.as_ref().map_or(self.stored, |(size, _)| *size)
    }

    /// The last record with this key.
    #[must_use]
    pub fn record(&self, key: &[u8]) -> Option<&[u8]> {
        last(&self.records, key)
    }

    /// The mode, with the type bits that some programs store.
    #[must_use]
    pub fn mode(&self) -> Option<i64> {
        self.header.mode()
    }

    /// Owner and group in the header.
    #[must_use]
    pub fn owner(&self) -> (Option<i64>, Option<i64>) {
        (self.header.uid(), self.header.gid())
    }

    /// The modification time in the header.
    #[must_use]
    pub fn mtime(&self) -> Option<i64> {
        self.header.mtime()
    }

    /// Major and minor number of a device.
    #[must_use]
    pub fn device(&self) -> Option<(u32, u32)> {
        if self.header.dialect() == Dialect::Old {
            return None;
        }
        let (major, minor) = self.header.device();
        // star writes numbers that do not fit into the header in records.
        let number = |key: &[u8], held| self.record(key).and_then(pax_number).or(held);
        let (major, minor) = (number(b"SCHILY.devmajor", major), number(b"SCHILY.devminor", minor));
        Some((u32::try_from(major?).ok()?, u32::try_from(minor?).ok()?))
    }
}

fn pax_number(text: &[u8]) -> Option<i64> {
    pax::number(text)?.try_into().ok()
}
