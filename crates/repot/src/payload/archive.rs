//! Entries of a tar archive: ustar headers, and PAX records for what these have no room for.
//!
//! Reads what `repot pack --payload` writes and refuses everything else: other dialects, records that are not known, names
//! that could lead out of the root. Allocates for one entry's records at a time, and no more than [`RECORDS`].

mod header;
pub mod pax;
mod records;

use alloc::vec::Vec;

use crate::error::Fault;
use header::Header;
use records::Records;

/// A block.
const BLOCK: usize = 512;
/// All PAX records of an entry together, in bytes.
pub const RECORDS: u64 = 1 << 20;

/// Where an archive is read from.
pub trait Source {
    /// The next bytes, at most `most`, at least one before the end; none at the end.
    ///
    /// # Errors
    /// What kept them from being read.
    fn next(&mut self, most: usize) -> Result<&[u8], Fault>;
}

impl Source for &[u8] {
    fn next(&mut self, most: usize) -> Result<&[u8], Fault> {
        let (piece, rest) = self.split_at(most.min(self.len()));
        *self = rest;
        Ok(piece)
    }
}

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A further name of an entry.
    Link,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A socket, which tar knows only as what `SCHILY.filetype` says of a fifo.
    Socket,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path below the root, of plain names; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub modified: (i64, u32),
    /// How many bytes of contents follow.
    pub size: u64,
    /// Where a link leads: a path below the root for a further name, anything for a symbolic link.
    pub target: Vec<u8>,
    /// What a device node stands for.
    pub device: (u32, u32),
    /// Extended attributes, by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn flaw<T>(what: &'static str, path: &[u8]) -> Result<T, Fault> {
    Err(Fault::flaw(what, path))
}

/// Fills the buffer; gives how much of it there was before the end.
fn fill(source: &mut dyn Source, buffer: &mut [u8]) -> Result<usize, Fault> {
    let mut filled = 0;
    while filled < buffer.len() {
        let piece = source.next(buffer.len() - filled)?;
        if piece.is_empty() {
            break;
        }
        buffer[filled..filled + piece.len()].copy_from_slice(piece);
        filled += piece.len();
    }
    Ok(filled)
}

/// Reads the next header with the records in front of it; nothing at the end. The contents of a file are to be read by
/// [`contents`].
///
/// # Errors
/// What is not as it should be.
pub fn entry(source: &mut dyn Source) -> Result<Option<Entry>, Fault> {
    let mut block = [0; BLOCK];
    let mut records = None;
    loop {
        match fill(source, &mut block)? {
            0 if records.is_none() => return Ok(None),
            BLOCK => {}
            _ => return flaw("an archive that ends within an entry", b""),
        }
        if block == [0; BLOCK] && records.is_none() {
            return end(source);
        }
        let header = Header::read(&block)?;
        if header.kind != b'x' {
            return header.entry(records.unwrap_or_default()).map(Some);
        }
        if records.is_some() || header.size > RECORDS {
            return flaw("PAX records of more than a MiB, or twice, before", &header.name());
        }
        let mut text = alloc::vec![0; usize::try_from(header.size).unwrap_or(0)];
        if fill(source, &mut text)? != text.len() {
            return flaw("an archive that ends within an entry", b"");
        }
        pad(source, header.size)?;
        records = Some(Records::read(&text)?);
    }
}

/// The end of an archive: nothing but zeros follow.
fn end(source: &mut dyn Source) -> Result<Option<Entry>, Fault> {
    loop {
        let piece = source.next(BLOCK)?;
        if piece.is_empty() {
            return Ok(None);
        }
        if piece.iter().any(|byte| *byte != 0) {
            return flaw("more behind the end of the archive", b"");
        }
    }
}

/// Calls `visit` with the contents of a file, piece by piece.
///
/// # Errors
/// Those of `visit` and of the source.
pub fn contents(
    source: &mut dyn Source,
    size: u64,
    mut visit: impl FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut left = size;
    while left > 0 {
        let piece = source.next(usize::try_from(left).unwrap_or(usize::MAX))?;
        if piece.is_empty() {
            return flaw("an archive that ends within an entry", b"");
        }
        left -= piece.len() as u64;
        visit(piece)?;
    }
    pad(source, size)
}

fn pad(source: &mut dyn Source, size: u64) -> Result<(), Fault> {
    let mut zeros = [0; BLOCK];
    let rest = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
    if fill(source, &mut zeros[..rest])? != rest || zeros != [0; BLOCK] {
        return flaw("no zeros between two entries", b"");
    }
    Ok(())
}

/// A path below the root; empty for the root itself.
///
/// # Errors
/// Where it could lead anywhere else.
fn place(name: &[u8], directory: bool) -> Result<Vec<u8>, Fault> {
    if directory && name == b"./" {
        return Ok(Vec::new());
    }
    let path = if directory { name.strip_suffix(b"/").unwrap_or(name) } else { name };
    let plain = |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
    if path.split(|byte| *byte == b'/').all(plain) {
        Ok(path.to_vec())
    } else {
        flaw("a name that leads out of the root:", name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::What;

    fn header(name: &[u8], kind: u8, size: usize, link: &[u8]) -> Vec<u8> {
        let mut block = [0u8; BLOCK];
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(b"0000644");
        for at in [108, 116, 329, 337] {
            block[at..at + 7].copy_from_slice(b"0000000");
        }
        block[124..135].copy_from_slice(alloc::format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(b"00000000017");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        block[148..155].copy_from_slice(alloc::format!("{sum:06o}\0").as_bytes());
        block[155] = b' ';
        block.to_vec()
    }

    fn first(bytes: &[u8]) -> Result<Option<Entry>, Fault> {
        let mut source = bytes;
        entry(&mut source)
    }

    fn said(bytes: &[u8]) -> &'static str {
        match first(bytes).expect_err("a flaw").what {
            What::Flaw(flaw) => flaw,
            other @ (What::Call(_) | What::LostWorker) => panic!("{other}"),
        }
    }

    #[test]
    fn names_that_lead_out_of_the_root_are_refused() {
        for name in
            [&b"/etc"[..], b"../etc", b"etc/../..", b"etc/..", b"a//b", b"./a", b"a/./b", b"", b"a/", b".."]
        {
            assert_eq!(said(&header(name, b'0', 0, b"")), "a name that leads out of the root:", "{name:?}");
            assert!(first(&header(b"a", b'1', 0, name)).is_err(), "{name:?}");
        }
        let root = first(&header(b"./", b'5', 0, b"")).expect("read").expect("an entry");
        assert_eq!((root.path.as_slice(), root.modified), (&b""[..], (15, 0)));
        assert_eq!(first(&header(b"a/b/", b'5', 0, b"")).expect("read").expect("an entry").path, b"a/b");
    }

    #[test]
    fn records_stand_before_what_they_are_for() {
        let text = b"20 mtime=12.0000005\n26 SCHILY.filetype=socket\n20 SCHILY.xattr.a.b=\n";
        let text = [&text[..43 + 3], &b"21 SCHILY.xattr.a.b=\n"[..]].concat();
        let mut bytes = header(b"PaxHeaders/a", b'x', text.len(), b"");
        bytes.extend_from_slice(&text);
        bytes.resize(1024, 0);
        bytes.extend(header(b"a", b'6', 0, b""));
        let entry = first(&bytes).expect("read").expect("an entry");
        assert_eq!((entry.kind, entry.modified), (Kind::Socket, (12, 500)));
        assert_eq!(entry.xattrs, [(b"a.b".to_vec(), b"".to_vec())]);
        assert!(first(&bytes[..1024]).is_err(), "records of nothing");
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let good = header(b"a", b'0', 0, b"");
        assert!(first(&good).is_ok());
        let mut sum = good.clone();
        sum[0] = b'b';
        assert_eq!(said(&sum), "the checksum of a header");
        assert_eq!(said(&good[..511]), "an archive that ends within an entry");
        for kind in [b'7', b'g', b'L', b'K', b'S', 0, b'9'] {
            assert!(first(&header(b"a", kind, 0, b"")).is_err(), "{kind}");
        }
        assert!(first(&header(b"a", b'5', 512, b"")).is_err());
        assert!(first(&header(b"a", b'2', 0, b"")).is_err());
        assert_eq!(first(&[0; 1024]), Ok(None));
        let mut more = [0; 1024];
        more[1023] = 1;
        assert_eq!(said(&more), "more behind the end of the archive");
    }
}
