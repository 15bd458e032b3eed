//! Splits an image into segments as the kernel does: cpio archives and compressed streams of them, with zeros
//! between.
//!
//! Follows `unpack_to_rootfs()`: an uncompressed member starts at a multiple of 4 bytes, any other non-zero
//! byte must start a compressed stream, and a compressed stream contains only members and zeros.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, Result, bail};

use super::bootconfig::Without;
use super::window::{Input, Window};
use crate::codec::Compression;
use crate::codec::ahead::{self, Piece, Pieces};
use crate::newc::{Item, Reader};

/// Zeros that may come before an image: `/dev/zero` has no end.
pub(crate) const ZEROS: u64 = 64 << 20;

/// Why an input with more of them is no image.
pub(crate) const ONLY_ZEROS: &str = "nothing but zeros in the first 64 MiB";

/// An uncompressed archive, or a compressed stream of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its first byte in the image.
    pub offset: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// Why the kernel cannot decompress it, although repot can.
    pub unreadable: Option<&'static str>,
}

/// Receives the contents of an image.
pub trait Visit {
    /// A segment starts.
    fn segment(&mut self, segment: Segment) -> Result<()>;
    /// A member, or the end of an archive, at this offset of the decompressed segment. Reading `data` is
    /// optional.
    fn item(&mut self, item: Item, offset: u64, data: &mut dyn Read) -> Result<()>;
    /// A segment ends, at this offset of the image, with this many decompressed bytes.
    fn end(&mut self, offset: u64, decompressed: u64) -> Result<()>;
    /// The boot configuration behind the image, with everything up to the end of the file.
    fn bootconfig(&mut self, _bytes: Vec<u8>) {}
}

/// What begins where a segment should, and is none.
#[derive(Debug)]
pub struct Strange {
    what: &'static str,
    /// Where it is in the image.
    pub offset: u64,
}

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at byte {}", self.what, self.offset)
    }
}

impl std::error::Error for Strange {}

/// Ends the reading: the visitor has what it wants.
#[derive(Debug)]
pub(crate) struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("found")
    }
}

impl std::error::Error for Stop {}

/// Reads the whole image. An error names the segment and the offset in it.
pub fn read(image: impl Read + Send, visit: &mut dyn Visit) -> Result<()> {
    let mut input = BufReader::with_capacity(256 << 10, Without::new(image));
    all(&mut input, 0, visit)?;
    if let Some(bytes) = input.get_mut().found.take() {
        visit.bootconfig(bytes);
    }
    Ok(())
}

/// The same for a part of a file. What nobody wants of an uncompressed archive is not read. Offsets count
/// from the first byte of the file.
pub(crate) fn read_window(window: &mut Window, visit: &mut dyn Visit) -> Result<()> {
    let bootconfig = window.without_bootconfig().context("cannot read the image")?;
    let base = window.position();
    all(window, base, visit)?;
    if let Some(bytes) = bootconfig {
        visit.bootconfig(bytes);
    }
    Ok(())
}

/// Reads an input whose first byte has the offset `base` in the file.
fn all<R: Input>(input: &mut R, base: u64, visit: &mut dyn Visit) -> Result<()> {
    let mut input = Counted { input, offset: 0 };
    // What follows an image in a partition may be long. In front of one, nothing needs so much.
    let mut limit = ZEROS;
    while let Some(byte) = skip_zeros(&mut input, limit).context("cannot read the image")? {
        limit = u64::MAX;
        let offset = input.offset;
        let shown = base + offset;
        if byte == b'0' && offset.is_multiple_of(4) {
            visit.segment(Segment { offset: shown, compression: Compression::None, unreadable: None })?;
            let decompressed =
                plain(&mut input, visit).with_context(|| format!("in the archive at byte {shown}"))?;
            visit.end(base + input.offset, decompressed - offset)?;
        } else {
            let magic = magic(&mut input).with_context(|| format!("at byte {shown}"))?;
            let compression = Compression::detect(&magic).map_err(|what| Strange { what, offset: shown })?;
            let unreadable = unreadable(compression, input.fill_buf()?);
            visit.segment(Segment { offset: shown, compression, unreadable })?;
            let mut stream = magic.chain(&mut input);
            let decompressed = compressed(&mut stream, compression, visit)
                .with_context(|| format!("in the {compression} segment at byte {shown}"))?;
            visit.end(base + input.offset, decompressed)?;
        }
    }
    Ok(())
}

/// Why the kernel cannot decompress a stream whose magic `rest` follows.
fn unreadable(compression: Compression, rest: &[u8]) -> Option<&'static str> {
    // The rest of the magic, and two bytes of flags: the second is the kind of check.
    match (compression, rest) {
        (Compression::Xz, [_, _, _, _, _, 0 | 1, ..]) => None,
        (Compression::Xz, [_, _, _, _, _, check, ..]) => Some(match check {
            4 => {
                "xz with the check crc64, the default of xz: the kernel reads only crc32 and none (xz --check=crc32)"
            }
            10 => "xz with the check sha256: the kernel reads only crc32 and none (xz --check=crc32)",
            _ => "xz with a check that the kernel does not know (xz --check=crc32)",
        }),
        _ => None,
    }
}

/// Reads uncompressed members, until the end of their archive or the start of a compressed stream.
fn plain<R: Input>(input: &mut Counted<'_, R>, visit: &mut dyn Visit) -> Result<u64> {
    let offset = input.offset;
    let mut reader = Reader::with(input, offset, |input, count| input.ahead(count));
    items(&mut reader, visit, false)?;
    Ok(reader.offset())
}

/// Reads a compressed stream. A thread decompresses, ahead of the reader.
fn compressed(
    input: &mut (impl BufRead + Send),
    compression: Compression,
    visit: &mut dyn Visit,
) -> Result<u64> {
    let decoder = Named { compression, pieces: compression.decoder(input)?, passed: 0 };
    ahead::of(decoder, |input| {
        let mut reader = Reader::new(input, 0);
        items(&mut reader, visit, true)?;
        let (offset, rest) = (reader.offset(), reader.input_mut().fill_buf()?);
        if offset == 0 && rest.get(257..).is_some_and(|rest| rest.starts_with(b"ustar")) {
            bail!("this is a tar archive, not an initramfs (repot pack makes one of it)");
        }
        if !rest.is_empty() {
            bail!("junk in the compressed archive, at byte {offset}");
        }
        Ok(offset)
    })
}

fn items<R: BufRead>(reader: &mut Reader<R>, visit: &mut dyn Visit, whole_stream: bool) -> Result<()> {
    while let Some(item) = reader.next_item()? {
        let offset = reader.offset();
        let trailer = item == Item::Trailer;
        visit.item(item, offset, reader)?;
        if trailer && !whole_stream {
            return Ok(reader.skip_data()?);
        }
    }
    Ok(())
}

/// Reads the first two bytes of a segment.
fn magic(input: &mut impl Read) -> Result<[u8; 2]> {
    let mut magic = [0; 2];
    input.read_exact(&mut magic[..1])?;
    match input.read_exact(&mut magic[1..]) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error.into()),
        // A single byte is not a magic, and a zero after it makes sure of that.
        _ => Ok(magic),
    }
}

fn skip_zeros(input: &mut impl BufRead, limit: u64) -> io::Result<Option<u8>> {
    let mut skipped = 0;
    loop {
        if skipped > limit {
            return Err(io::Error::other(ONLY_ZEROS));
        }
        let bytes = match input.fill_buf() {
            Ok([]) => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        let next = bytes.get(zeros).copied();
        input.consume(zeros);
        skipped += zeros as u64;
        if next.is_some() {
            return Ok(next);
        }
    }
}

/// Counts the bytes that are taken from a buffered reader.
struct Counted<'a, R> {
    input: &'a mut R,
    offset: u64,
}

impl<R: Input> Counted<'_, R> {
    fn ahead(&mut self, count: u64) -> io::Result<u64> {
        let skipped = self.input.ahead(count)?;
        self.offset += skipped;
        Ok(skipped)
    }
}

impl<R: BufRead> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.offset += got as u64;
        Ok(got)
    }
}

impl<R: BufRead> BufRead for Counted<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.offset += count as u64;
    }
}

/// A decoder whose errors name the compression.
struct Named<P> {
    compression: Compression,
    pieces: P,
    passed: u64,
}

impl<P: Pieces> Pieces for Named<P> {
    fn next(&mut self, wait: &mut dyn FnMut() -> bool) -> io::Result<Option<Piece>> {
        let Named { compression, pieces, passed } = self;
        let next = pieces.next(wait).map_err(|error| {
            let text = format!("cannot decompress {compression} after {passed} unpacked bytes: {error}");
            io::Error::new(error.kind(), text)
        })?;
        *passed += next.as_ref().map_or(0, |piece| (**piece).as_ref().len() as u64);
        Ok(next)
    }
}
