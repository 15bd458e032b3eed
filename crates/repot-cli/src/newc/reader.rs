//! The streaming reader: the kernel's state machine (`init/initramfs.c`, 7.2 and later), with offsets in its
//! complaints.
//!
//! What the kernel passes over without a word is reported as [`Item::Skipped`], what stops it is [`Damage`].
//! Memory is bounded by one name: a size in a header is never believed until that many bytes were read.

use std::fmt;
use std::io::{self, BufRead, Read};

use crate::report::name::shown;

use super::header::{HEADER_LEN, Header, padding};
use super::{NAME_MAX, TRAILER};

/// The kernel's `PATH_MAX`: a name with its NUL, and a symbolic link's target.
const PATH_MAX: u32 = 4096;

/// What comes next in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A member. Its data is what the reader reads next.
    Member(Header),
    /// A member that the kernel passes over, and why.
    Skipped(Header, &'static str),
    /// `TRAILER!!!`: the table of hard links begins anew. More members may follow.
    Trailer,
}

/// Where and why the kernel would stop.
#[derive(Debug)]
pub struct Damage {
    /// Bytes from the beginning of the (decompressed) archive.
    pub offset: u64,
    /// The complaint.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} of the archive", self.what, self.offset)
    }
}

impl std::error::Error for Damage {}

/// Reads members one after the other from `R`.
#[derive(Debug)]
pub struct Reader<R: BufRead> {
    input: R,
    offset: u64,
    /// Bytes of the current member's data not yet read.
    left: u32,
    /// The sum of the bytes read, where the header carries one to compare with.
    sum: Option<(u32, u32)>,
}

impl<R: BufRead> Reader<R> {
    /// A reader for an archive whose first byte is next in `input` and is byte `offset` of the segment.
    pub fn new(input: R, offset: u64) -> Reader<R> {
        Reader { input, offset, left: 0, sum: None }
    }

    /// Bytes from the beginning of the segment to what is read next.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next member, past what was not read of the last one's data and the zeros between members.
    ///
    /// `None` at the end of the input, or before a byte other than zero that begins no member: see
    /// [`Reader::input_mut`].
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        self.skip_data()?;
        let Some(byte) = self.skip_zeros()? else { return Ok(None) };
        if byte != b'0' {
            return Ok(None);
        }
        let start = self.offset;
        if start & 3 != 0 {
            return Err(damage(start, "broken padding: a member begins where no multiple of four is"));
        }
        let mut bytes = [0; HEADER_LEN];
        self.fill(&mut bytes).map_err(|error| cut(error, start, "the header"))?;
        let (header, namesize, check) = parse(&bytes).map_err(|what| damage(start, what))?;
        self.left = header.filesize;
        self.body(header, namesize, check, start).map(Some)
    }

    /// What the archive is read from, to look at what follows it.
    pub fn input_mut(&mut self) -> &mut R {
        &mut self.input
    }

    fn body(
        &mut self,
        mut header: Header,
        namesize: u32,
        check: Option<u32>,
        start: u64,
    ) -> io::Result<Item> {
        if namesize == 0 || namesize > PATH_MAX {
            self.skip(u64::from(namesize)).map_err(|error| cut(error, start, "the name"))?;
            self.pad()?;
            let why = if namesize == 0 { "it has no name" } else { "its name is longer than PATH_MAX" };
            return Ok(Item::Skipped(header, why));
        }
        let mut name = vec![0; namesize as usize];
        self.fill(&mut name).map_err(|error| cut(error, start, "the name"))?;
        self.pad()?;
        if name.pop() != Some(0) {
            return Err(damage(start, format!("a name without its NUL: \"{}\"", shown(&name))));
        }
        // A name may be padded with zeros, to align the data that follows.
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        name.truncate(end.min(NAME_MAX));
        header.name = name;
        if header.is_symlink() && header.filesize > PATH_MAX {
            return Ok(Item::Skipped(header, "its target is longer than PATH_MAX"));
        }
        if !header.is_symlink() && !header.is_file() && header.filesize > 0 {
            return Ok(Item::Skipped(header, "it has data but is no regular file"));
        }
        if header.name == TRAILER && !header.is_symlink() {
            return Ok(Item::Trailer);
        }
        if header.name.is_empty() {
            return Ok(Item::Skipped(header, "its name is empty"));
        }
        self.sum = check.filter(|_| header.is_file()).map(|check| (check, 0));
        Ok(Item::Member(header))
    }

    /// Reads what is left of the current member's data, and compares its checksum where it has one.
    pub fn skip_data(&mut self) -> io::Result<()> {
        let mut sink = [0; 8192];
        while self.left > 0 {
            let _ = self.read(&mut sink)?;
        }
        if let Some((expected, sum)) = self.sum.take()
            && expected != sum
        {
            return Err(damage(
                self.offset,
                format!("bad checksum of the data: {sum:08x}, not {expected:08x}"),
            ));
        }
        self.pad()
    }

    /// The zeros that align the next part. At the end of the input they may be missing.
    fn pad(&mut self) -> io::Result<()> {
        let zeros = padding(self.offset) as u64;
        match self.skip(zeros) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            done => done,
        }
    }

    fn skip_zeros(&mut self) -> io::Result<Option<u8>> {
        loop {
            let bytes = fill_buf(&mut self.input)?;
            let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
            let next = bytes.get(zeros).copied();
            let end = bytes.is_empty();
            self.input.consume(zeros);
            self.offset += zeros as u64;
            if next.is_some() || end {
                return Ok(next);
            }
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.input.read_exact(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let here = fill_buf(&mut self.input)?.len();
            if here == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = here.min(usize::try_from(count).unwrap_or(usize::MAX));
            self.input.consume(step);
            self.offset += step as u64;
            count -= step as u64;
        }
        Ok(())
    }
}

/// The data of the member that [`Reader::next_item`] returned last.
impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(self.left as usize);
        if want == 0 {
            return Ok(0);
        }
        let got = self.input.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(damage(self.offset, format!("ends {} bytes early, in a member's data", self.left)));
        }
        if let Some((_, sum)) = &mut self.sum {
            *sum = buffer[..got].iter().fold(*sum, |sum, &byte| sum.wrapping_add(u32::from(byte)));
        }
        self.offset += got as u64;
        self.left = self.left.saturating_sub(u32::try_from(got).unwrap_or(u32::MAX));
        Ok(got)
    }
}

fn fill_buf<R: BufRead>(input: &mut R) -> io::Result<&[u8]> {
    loop {
        match input.fill_buf() {
            // The borrow of a returned buffer would outlive the loop: look again.
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    input.fill_buf()
}

/// The header, the name's size, and the checksum where the magic says there is one.
fn parse(bytes: &[u8; HEADER_LEN]) -> Result<(Header, u32, Option<u32>), String> {
    let check = match &bytes[..6] {
        b"070701" => false,
        b"070702" => true,
        b"070707" => {
            return Err("the old cpio format (made without -H newc), which the kernel does not read".into());
        }
        magic => return Err(format!("no cpio magic: \"{}\"", magic.escape_ascii())),
    };
    let mut fields = [0; 13];
    for (field, digits) in fields.iter_mut().zip(bytes[6..].chunks_exact(8)) {
        // from_str_radix() would take a sign.
        *field = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| {
                format!("a damaged header: \"{}\" is no hexadecimal number", digits.escape_ascii())
            })?;
    }
    let [
        ino,
        mode,
        uid,
        gid,
        nlink,
        mtime,
        filesize,
        devmajor,
        devminor,
        rdevmajor,
        rdevminor,
        namesize,
        sum,
    ] = fields;
    let name = Vec::new();
    let header = Header {
        name,
        ino,
        mode,
        uid,
        gid,
        nlink,
        mtime,
        filesize,
        devmajor,
        devminor,
        rdevmajor,
        rdevminor,
    };
    Ok((header, namesize, check.then_some(sum)))
}

fn damage(offset: u64, what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Damage { offset, what: what.into() })
}

fn cut(error: io::Error, offset: u64, within: &str) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return damage(offset, format!("ends in {within} of a member"));
    }
    error
}
