//! The streaming reader: the kernel's state machine (`init/initramfs.c`, 7.2 and later), with offsets in
//! errors.
//!
//! Members that the kernel skips silently are returned as [`Item::Skipped`]; what stops the kernel is a
//! [`Damage`]. The reader allocates memory for one name at a time, never by a size in a header.

use std::fmt;
use std::io::{self, BufRead, Read};

use crate::report::name::shown;
use crate::tree::path::{is_normal, normal};

use super::header::{HEADER_LEN, Header, padding};
use super::{NAME_MAX, TRAILER};

/// The kernel's `PATH_MAX`: limit of a name with its NUL, and of the target of a symbolic link.
const PATH_MAX: u32 = 4096;

/// The next part of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A member. Read its data from the reader.
    Member(Header),
    /// A member that the kernel skips, and why.
    Skipped(Header, &'static str),
    /// `TRAILER!!!`, which empties the table of hard links. More members may follow.
    Trailer,
}

/// Why and where the kernel would stop.
#[derive(Debug)]
pub struct Damage {
    /// Bytes from the start of the decompressed archive.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} of the archive", self.what, self.offset)
    }
}

impl std::error::Error for Damage {}

/// Reads the members of an archive in order. Their names have no slashes at their ends and no `./`: the
/// kernel takes names as paths.
#[derive(Debug)]
pub struct Reader<R: BufRead> {
    input: R,
    offset: u64,
    /// Unread bytes of the data of the current member.
    left: u32,
    /// The checksum in the header, if it has one, and the sum of the bytes read so far.
    sum: Option<(u32, u32)>,
    /// Skips data that nobody reads.
    ahead: Ahead<R>,
}

/// Skips bytes, and returns how many: fewer at the end of the input.
type Ahead<R> = fn(&mut R, u64) -> io::Result<u64>;

impl<R: BufRead> Reader<R> {
    /// A reader for an archive that starts at the next byte of `input`, which is byte `offset` of the
    /// segment.
    pub fn new(input: R, offset: u64) -> Reader<R> {
        Reader::with(input, offset, pass)
    }

    /// The same, for an input that can skip without reading.
    pub(crate) fn with(input: R, offset: u64, ahead: Ahead<R>) -> Reader<R> {
        Reader { input, offset, left: 0, sum: None, ahead }
    }

    /// Bytes from the start of the segment to the next byte to read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next part. Skips unread data of the last member, and zeros between members.
    ///
    /// Returns `None` at the end of the input, or before a byte that cannot start a member: the caller can
    /// inspect it through [`Reader::input_mut`].
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        self.skip_data()?;
        let Some(byte) = self.skip_zeros()? else { return Ok(None) };
        if byte != b'0' {
            return Ok(None);
        }
        let start = self.offset;
        if start & 3 != 0 {
            return Err(damage(
                start,
                "wrong padding: a member starts at an offset that is not a multiple of 4",
            ));
        }
        let mut bytes = [0; HEADER_LEN];
        self.fill(&mut bytes).map_err(|error| truncated(error, start, "the header"))?;
        let (header, namesize, check) = parse(&bytes).map_err(|what| damage(start, what))?;
        self.left = header.filesize;
        self.body(header, namesize, check, start).map(Some)
    }

    /// The input, for looking at what follows the archive.
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
            self.skip(u64::from(namesize)).map_err(|error| truncated(error, start, "the name"))?;
            self.pad()?;
            let why = if namesize == 0 { "it has no name" } else { "its name is longer than PATH_MAX" };
            return Ok(Item::Skipped(header, why));
        }
        let mut name = vec![0; namesize as usize];
        self.fill(&mut name).map_err(|error| truncated(error, start, "the name"))?;
        self.pad()?;
        if name.pop() != Some(0) {
            return Err(damage(start, format!("a name has no NUL at its end: \"{}\"", shown(&name))));
        }
        // Packers pad names with zeros to align the data.
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        name.truncate(end.min(NAME_MAX));
        header.name = name;
        if header.is_symlink() && header.filesize > PATH_MAX {
            return Ok(Item::Skipped(header, "its target is longer than PATH_MAX"));
        }
        if !header.is_symlink() && !header.is_file() && header.filesize > 0 {
            return Ok(Item::Skipped(header, "it has data but is not a regular file"));
        }
        if header.name == TRAILER && !header.is_symlink() {
            return Ok(Item::Trailer);
        }
        if header.name.is_empty() {
            return Ok(Item::Skipped(header, "its name is empty"));
        }
        if header.name.ends_with(b"/") && !header.is_dir() {
            return Ok(Item::Skipped(header, "its name ends with a slash, but it is not a directory"));
        }
        header.name = resolved(header.name);
        self.sum = check.filter(|_| header.is_file()).map(|check| (check, 0));
        Ok(Item::Member(header))
    }

    /// Skips the rest of the data of the current member, and verifies its checksum if it has one.
    pub fn skip_data(&mut self) -> io::Result<()> {
        if self.sum.is_some() {
            io::copy(self, &mut io::sink())?;
        }
        let skipped = (self.ahead)(&mut self.input, self.left.into())?;
        self.offset += skipped;
        self.left = self.left.saturating_sub(u32::try_from(skipped).unwrap_or(u32::MAX));
        if self.left > 0 {
            return Err(self.missing());
        }
        if let Some((expected, sum)) = self.sum.take()
            && expected != sum
        {
            return Err(damage(
                self.offset,
                format!("wrong checksum of the data: {sum:08x}, expected {expected:08x}"),
            ));
        }
        self.pad()
    }

    /// Skips the zeros that align the next part. They may be missing at the end of the input.
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

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = pass(&mut self.input, count)?;
        self.offset += skipped;
        if skipped < count { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn missing(&self) -> io::Error {
        damage(self.offset, format!("truncated: {} bytes of a member's data are missing", self.left))
    }
}

/// Skips bytes by reading them, and returns how many there were.
pub(crate) fn pass<R: BufRead>(input: &mut R, count: u64) -> io::Result<u64> {
    let mut left = count;
    while left > 0 {
        let here = fill_buf(input)?.len();
        if here == 0 {
            break;
        }
        let step = here.min(usize::try_from(left).unwrap_or(usize::MAX));
        input.consume(step);
        left -= step as u64;
    }
    Ok(count - left)
}

/// Reads the data of the member that [`Reader::next_item`] returned last.
impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(self.left as usize);
        if want == 0 {
            return Ok(0);
        }
        let got = self.input.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(self.missing());
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
            // Returning the buffer here would extend its borrow over the loop.
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    input.fill_buf()
}

/// Returns the header, the size of the name, and the checksum if the format has one.
fn parse(bytes: &[u8; HEADER_LEN]) -> Result<(Header, u32, Option<u32>), String> {
    let check = match &bytes[..6] {
        b"070701" => false,
        b"070702" => true,
        b"070707" => {
            return Err(
                "this is the old cpio format, which the kernel does not read: use cpio -H newc".into()
            );
        }
        magic => return Err(format!("not a cpio magic: \"{}\"", magic.escape_ascii())),
    };
    let mut fields = [0; 13];
    for (field, digits) in fields.iter_mut().zip(bytes[6..].chunks_exact(8)) {
        *field = number(digits).ok_or_else(|| {
            format!("corrupt header: \"{}\" is not a hexadecimal number", digits.escape_ascii())
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
        checksum: check,
    };
    Ok((header, namesize, check.then_some(sum)))
}

/// The value of hexadecimal digits without a sign.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// A name as every reader of members takes it: [normal], with `.` for the root. The kernel does not create
/// `x/.`, so that stays what it is.
fn resolved(name: Vec<u8>) -> Vec<u8> {
    if is_normal(&name) {
        return name;
    }
    match normal(&name) {
        root if root.is_empty() => b".".to_vec(),
        path if name.ends_with(b"/.") => [&path, &b"/."[..]].concat(),
        path => path,
    }
}

fn damage(offset: u64, what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Damage { offset, what: what.into() })
}

fn truncated(error: io::Error, offset: u64, within: &str) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return damage(offset, format!("truncated in {within} of a member"));
    }
    error
}

/// The target of a symbolic link. The kernel takes it as a string, up to the first NUL: `gen_init_cpio` ends
/// all targets with one.
pub(crate) fn target(data: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut target = Vec::new();
    data.take(PATH_MAX.into()).read_to_end(&mut target)?;
    let end = target.iter().position(|byte| *byte == 0).unwrap_or(target.len());
    target.truncate(end);
    Ok(target)
}
