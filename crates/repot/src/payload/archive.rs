//! Entries of a tar archive: ustar headers, and PAX records for what these have no room for.
//!
//! Reads what `repot pack --payload` writes and refuses everything else: other dialects, records that are not known, names
//! that could lead out of the root. Allocates for one entry's records at a time, and no more than [`RECORDS`].

use alloc::vec::Vec;

use rustix::io::Errno;

use crate::error::Fault;

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
    Err(Fault { call: what, path: path.to_vec(), errno: Errno::BADMSG })
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

/// What a block says.
struct Header<'a> {
    block: &'a [u8; BLOCK],
    kind: u8,
    size: u64,
}

impl<'a> Header<'a> {
    fn read(block: &'a [u8; BLOCK]) -> Result<Self, Fault> {
        let header = Header { block, kind: block[156], size: 0 };
        let sum = |at: usize| if (148..156).contains(&at) { 32 } else { u64::from(block[at]) };
        let sum: u64 = (0..BLOCK).map(sum).sum();
        if octal(&block[148..156]) != Some(sum) {
            return flaw("the checksum of a header", &header.name());
        }
        if &block[257..265] != b"ustar\x0000" {
            return flaw("no ustar header:", &header.name());
        }
        match octal(&block[124..136]) {
            Some(size) => Ok(Header { size, ..header }),
            None => flaw("the size of", &header.name()),
        }
    }

    fn name(&self) -> Vec<u8> {
        let (name, prefix) = (text(&self.block[..100]), text(&self.block[345..500]));
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    fn number(&self, at: core::ops::Range<usize>, name: &[u8]) -> Result<u32, Fault> {
        match octal(&self.block[at]).and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(number),
            None => flaw("a number in the header of", name),
        }
    }

    fn entry(&self, records: Records) -> Result<Entry, Fault> {
        let name = records.path.unwrap_or_else(|| self.name());
        let kind = match (self.kind, records.socket) {
            (b'0', false) => Kind::File,
            (b'1', false) => Kind::Link,
            (b'2', false) => Kind::Symlink,
            (b'3', false) => Kind::Character,
            (b'4', false) => Kind::Block,
            (b'5', false) => Kind::Directory,
            (b'6', false) => Kind::Fifo,
            (b'6', true) => Kind::Socket,
            _ => return flaw("an entry of a kind that does not belong here:", &name),
        };
        let number = |at| self.number(at, &name);
        let mut entry = Entry {
            path: place(&name, kind == Kind::Directory)?,
            kind,
            mode: number(100..108)?,
            uid: records.uid.map_or_else(|| number(108..116), Ok)?,
            gid: records.gid.map_or_else(|| number(116..124), Ok)?,
            modified: (0, 0),
            size: records.size.unwrap_or(self.size),
            target: records.target.unwrap_or_else(|| text(&self.block[157..257]).to_vec()),
            device: (number(329..337)?, number(337..345)?),
            xattrs: records.xattrs,
        };
        entry.modified = match records.modified {
            Some(time) => time,
            None => (octal(&self.block[136..148]).and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0),
        };
        let plain = match kind {
            Kind::File => true,
            Kind::Link => entry.size == 0 && place(&entry.target, false).is_ok(),
            Kind::Symlink => {
                entry.size == 0 && (1..4096).contains(&entry.target.len()) && !entry.target.contains(&0)
            }
            Kind::Character | Kind::Block | Kind::Directory | Kind::Fifo | Kind::Socket => entry.size == 0,
        };
        if !plain || entry.mode > 0o7777 {
            return flaw("a header that makes no sense:", &name);
        }
        Ok(entry)
    }
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

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// A number in octal digits, with nothing but a zero or a space behind them.
fn octal(field: &[u8]) -> Option<u64> {
    let end = field.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = field.split_at(end);
    if digits.is_empty() || rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        let digit = char::from(*digit).to_digit(8)?;
        sum.checked_mul(8)?.checked_add(digit.into())
    })
}

/// What PAX records say.
#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    modified: Option<(i64, u32)>,
    socket: bool,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The name of an attribute: a key ends at the first `=`, so GNU tar writes that as `%3D`, and `%` as `%25`.
fn attribute(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, more @ ..] = rest {
        let (byte, more) = match rest {
            [b'%', b'3', b'D', more @ ..] => (b'=', more),
            [b'%', b'2', b'5', more @ ..] => (b'%', more),
            _ => (*first, more),
        };
        plain.push(byte);
        rest = more;
    }
    plain
}

impl Records {
    fn read(text: &[u8]) -> Result<Records, Fault> {
        let mut records = Records::default();
        let mut rest = text;
        while !rest.is_empty() {
            let Some((key, value, more)) = record(rest) else {
                return flaw("a PAX record of a wrong length", b"");
            };
            rest = more;
            if records.set(key, value).is_none() {
                return flaw("a PAX record that is not known here:", key);
            }
        }
        Ok(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if name.is_empty() || name.contains(&0) {
                return None;
            }
            self.xattrs.push((attribute(name), value.to_vec()));
            return Some(());
        }
        let number = || core::str::from_utf8(value).ok()?.parse::<u64>().ok();
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.target = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(u32::try_from(number()?).ok()?),
            b"gid" => self.gid = Some(u32::try_from(number()?).ok()?),
            b"mtime" => self.modified = Some(time(value)?),
            b"SCHILY.filetype" if value == b"socket" => self.socket = true,
            _ => return None,
        }
        Some(())
    }
}

/// The first record: `LENGTH KEY=VALUE\n`, its length counting all of it.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = core::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
    let (record, rest) = text.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// Seconds with up to nine digits behind the point.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = core::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) || seconds.starts_with('-') {
        return None;
    }
    let scale = 10u32.pow(9 - u32::try_from(fraction.len()).ok()?);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u32>().ok()? };
    Some((seconds.parse().ok()?, fraction * scale))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        first(bytes).expect_err("a flaw").call
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
