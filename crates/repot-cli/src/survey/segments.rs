//! Splits an image into segments as the kernel does: cpio archives and compressed streams of them, with zeros
//! between.
//!
//! Follows `unpack_to_rootfs()`: an uncompressed member starts at a multiple of 4 bytes, any other non-zero
//! byte must start a compressed stream, and a compressed stream contains only members and zeros.

use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, Result, anyhow, bail};

use super::bootconfig::Without;
use crate::codec::Compression;
use crate::newc::{Item, Reader};

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

/// Reads the whole image. An error names the segment and the offset in it.
pub fn read(image: impl Read, visit: &mut dyn Visit) -> Result<()> {
    let image = BufReader::with_capacity(256 << 10, Without::new(image));
    let mut input = Counted { input: image, offset: 0 };
    while let Some(byte) = skip_zeros(&mut input).context("cannot read the image")? {
        let offset = input.offset;
        if byte == b'0' && offset.is_multiple_of(4) {
            let segment = Segment { offset, compression: Compression::None, unreadable: None };
            visit.segment(segment)?;
            let decompressed =
                plain(&mut input, visit).with_context(|| format!("in the archive at byte {offset}"))?;
            visit.end(input.offset, decompressed - offset)?;
        } else {
            let magic = magic(&mut input).with_context(|| format!("at byte {offset}"))?;
            let compression =
                Compression::detect(&magic).map_err(|what| anyhow!("{what}, at byte {offset}"))?;
            let unreadable = unreadable(compression, input.fill_buf()?);
            let segment = Segment { offset, compression, unreadable };
            visit.segment(segment)?;
            let mut stream = magic.chain(&mut input);
            let decompressed = compressed(&mut stream, compression, visit)
                .with_context(|| format!("in the {compression} segment at byte {offset}"))?;
            visit.end(input.offset, decompressed)?;
        }
    }
    if let Some(bytes) = input.input.get_mut().found.take() {
        visit.bootconfig(bytes);
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
fn plain<R: BufRead>(input: &mut Counted<R>, visit: &mut dyn Visit) -> Result<u64> {
    let offset = input.offset;
    let mut reader = Reader::new(input, offset);
    items(&mut reader, visit, false)?;
    Ok(reader.offset())
}

fn compressed(input: &mut impl BufRead, compression: Compression, visit: &mut dyn Visit) -> Result<u64> {
    let decoder = Named { compression, input: compression.decoder(input)?, passed: 0 };
    let mut reader = Reader::new(BufReader::with_capacity(256 << 10, decoder), 0);
    items(&mut reader, visit, true)?;
    if !reader.input_mut().fill_buf()?.is_empty() {
        bail!("junk in the compressed archive, at byte {}", reader.offset());
    }
    Ok(reader.offset())
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

fn skip_zeros(input: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let bytes = match input.fill_buf() {
            Ok([]) => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        let next = bytes.get(zeros).copied();
        input.consume(zeros);
        if next.is_some() {
            return Ok(next);
        }
    }
}

/// Counts the bytes that are taken from a buffered reader.
struct Counted<R> {
    input: R,
    offset: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.offset += got as u64;
        Ok(got)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.offset += count as u64;
    }
}

/// A decoder whose errors name the compression.
struct Named<R> {
    compression: Compression,
    input: R,
    passed: u64,
}

impl<R: Read> Read for Named<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let Named { compression, passed, .. } = self;
            let text = format!("cannot decompress {compression} after {passed} unpacked bytes: {error}");
            io::Error::new(error.kind(), text)
        })?;
        self.passed += got as u64;
        Ok(got)
    }
}
