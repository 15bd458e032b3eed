//! Reads tar archives: ustar headers, with PAX records for values that do not fit.
//!
//! Accepts only what `repot pack --payload` writes. Other dialects, unknown records and names that could lead
//! out of the root are errors. Memory is allocated for one entry's records at a time, at most [`RECORDS`].

mod header;
pub mod pax;
mod records;

use alloc::vec::Vec;

use crate::error::Fault;
use header::Header;
use records::Records;

/// The block size of tar, in bytes.
const BLOCK: usize = 512;
/// The maximum size of the PAX records of one entry, in bytes.
pub const RECORDS: u64 = 1 << 20;

/// The source of an archive.
pub trait Source {
    /// Returns the next bytes: at most `max`, at least one before the end, none at the end.
    ///
    /// # Errors
    /// What failed while reading.
    fn next(&mut self, max: usize) -> Result<&[u8], Fault>;
}

impl Source for &[u8] {
    fn next(&mut self, max: usize) -> Result<&[u8], Fault> {
        let (piece, tail) = self.split_at(max.min(self.len()));
        *self = tail;
        Ok(piece)
    }
}

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A hard link to an earlier entry.
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
    /// A socket. tar has no type for it: `SCHILY.filetype` marks a fifo as one.
    Socket,
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path below the root, without `.`, `..` or empty components; empty for the root itself.
    pub path: Vec<u8>,
    /// The kind.
    pub kind: Kind,
    /// The twelve permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The modification time, in seconds and nanoseconds.
    pub modified: (i64, u32),
    /// The size of the contents that follow, in bytes.
    pub size: u64,
    /// The target of a link: a path below the root for a hard link, any text for a symbolic link.
    pub target: Vec<u8>,
    /// The device number of a device node: major and minor.
    pub device: (u32, u32),
    /// Extended attributes: name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn flaw<T>(what: &'static str, path: &[u8]) -> Result<T, Fault> {
    Err(Fault::flaw(what, path))
}

/// Fills the buffer. Returns the number of bytes read, which is less only at the end.
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

/// Reads the next header with the records in front of it; `None` at the end. Read the contents of a file with
/// [`contents`].
///
/// # Errors
/// An error in the archive.
pub fn entry(source: &mut dyn Source) -> Result<Option<Entry>, Fault> {
    let mut block = [0; BLOCK];
    let mut records = None;
    loop {
        match fill(source, &mut block)? {
            0 if records.is_none() => return Ok(None),
            BLOCK => {}
            _ => return flaw("archive truncated within entry", b""),
        }
        if block == [0; BLOCK] && records.is_none() {
            return end(source);
        }
        let header = Header::read(&block)?;
        if header.kind != b'x' {
            return header.entry(records.unwrap_or_default()).map(Some);
        }
        if records.is_some() || header.size > RECORDS {
            return flaw("PAX records above 1 MiB, or repeated, before", &header.name());
        }
        let mut text = alloc::vec![0; usize::try_from(header.size).unwrap_or(0)];
        if fill(source, &mut text)? != text.len() {
            return flaw("archive truncated within entry", b"");
        }
        skip_padding(source, header.size)?;
        records = Some(Records::read(&text)?);
    }
}

/// Checks that only zeros follow the end of the archive.
fn end(source: &mut dyn Source) -> Result<Option<Entry>, Fault> {
    loop {
        let piece = source.next(BLOCK)?;
        if piece.is_empty() {
            return Ok(None);
        }
        if piece.iter().any(|byte| *byte != 0) {
            return flaw("data after the end of the archive", b"");
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
            return flaw("archive truncated within entry", b"");
        }
        left -= piece.len() as u64;
        visit(piece)?;
    }
    skip_padding(source, size)
}

/// Skips the zeros after an entry.
fn skip_padding(source: &mut dyn Source, size: u64) -> Result<(), Fault> {
    let mut zeros = [0; BLOCK];
    let tail = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
    if fill(source, &mut zeros[..tail])? != tail || zeros != [0; BLOCK] {
        return flaw("nonzero or missing padding after entry", b"");
    }
    Ok(())
}

/// Checks a name, and returns it as a path below the root; empty for the root itself.
///
/// # Errors
/// The name could lead out of the root.
fn inner_path(name: &[u8], directory: bool) -> Result<Vec<u8>, Fault> {
    if directory && name == b"./" {
        return Ok(Vec::new());
    }
    let path = if directory { name.strip_suffix(b"/").unwrap_or(name) } else { name };
    let plain = |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
    if path.split(|byte| *byte == b'/').all(plain) {
        Ok(path.to_vec())
    } else {
        flaw("name leads out of the root:", name)
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

    fn flaw_of(bytes: &[u8]) -> &'static str {
        match first(bytes).expect_err("a flaw").what {
            What::Flaw(flaw) => flaw,
            other @ (What::Call(_) | What::LostWorker | What::NewProcess) => panic!("{other}"),
        }
    }

    #[test]
    fn names_that_lead_out_of_the_root_are_refused() {
        for name in
            [&b"/etc"[..], b"../etc", b"etc/../..", b"etc/..", b"a//b", b"./a", b"a/./b", b"", b"a/", b".."]
        {
            assert_eq!(flaw_of(&header(name, b'0', 0, b"")), "name leads out of the root:", "{name:?}");
            assert!(first(&header(b"a", b'1', 0, name)).is_err(), "{name:?}");
        }
        let root = first(&header(b"./", b'5', 0, b"")).expect("read").expect("an entry");
        assert_eq!((root.path.as_slice(), root.modified), (&b""[..], (15, 0)));
        assert_eq!(first(&header(b"a/b/", b'5', 0, b"")).expect("read").expect("an entry").path, b"a/b");
    }

    #[test]
    fn records_come_before_their_entry() {
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
    fn malformed_entries_are_refused() {
        let good = header(b"a", b'0', 0, b"");
        assert!(first(&good).is_ok());
        let mut sum = good.clone();
        sum[0] = b'b';
        assert_eq!(flaw_of(&sum), "header checksum mismatch:");
        assert_eq!(flaw_of(&good[..511]), "archive truncated within entry");
        for kind in [b'7', b'g', b'L', b'K', b'S', 0, b'9'] {
            assert!(first(&header(b"a", kind, 0, b"")).is_err(), "{kind}");
        }
        assert!(first(&header(b"a", b'5', 512, b"")).is_err());
        assert!(first(&header(b"a", b'2', 0, b"")).is_err());
        assert_eq!(first(&[0; 1024]), Ok(None));
        let mut more = [0; 1024];
        more[1023] = 1;
        assert_eq!(flaw_of(&more), "data after the end of the archive");
    }
}
