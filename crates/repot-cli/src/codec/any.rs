//! Decompresses whole files, as the programs of each format do: several streams may follow each other, and
//! the formats include some that the kernel does not read.

use std::io::{self, BufRead, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::streams::Streams;
use super::zstd::WINDOW_LOG;
use super::{Compression, XZ_MEMORY, lz4, lzop, lzw};

/// Bytes that [`detect`] looks at.
pub const HEAD: usize = 16;

/// The compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One that the kernel reads too.
    Kernel(Compression),
    /// lz4 in its modern frame.
    Lz4Frame,
    /// lzip.
    Lzip,
    /// compress(1), `.Z`.
    Compress,
}

/// The compression of a file by its first bytes. `None` if it is not compressed by anything that we read.
///
/// The tests are stricter than the kernel's, because the file may also be a tar archive, which begins with
/// any name.
#[must_use]
pub fn detect(head: &[u8]) -> Option<Format> {
    Some(match head {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Kernel(Compression::Zstd),
        // A frame without data, behind which one with data follows: of zstd or of lz4.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Kernel(Compression::Zstd),
        [0x1f, 0x8b, 8, ..] => Format::Kernel(Compression::Gzip),
        [0x1f, 0x9d, ..] => Format::Compress,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Kernel(Compression::Xz),
        [0x02, 0x21, 0x4c, 0x18, ..] => Format::Kernel(Compression::Lz4),
        [0x04, 0x22, 0x4d, 0x18, ..] => Format::Lz4Frame,
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Format::Kernel(Compression::Bzip2),
        [0x89, b'L', b'Z', b'O', 0, ..] => Format::Kernel(Compression::Lzo),
        [b'L', b'Z', b'I', b'P', 0 | 1, ..] => Format::Lzip,
        // The size of the dictionary, then that of the data: a tar archive has zeros in both.
        [0x5d, 0, 0, d1, d2, ..] if (*d1, *d2) != (0, 0) => Format::Kernel(Compression::Lzma),
        _ => return None,
    })
}

/// A reader of all decompressed data. Input that is not compressed passes through. What follows the last
/// stream stays in `input`.
pub fn decompressed<'a, R: BufRead>(input: &'a mut R) -> io::Result<Box<dyn Read + 'a>> {
    let head = head(input)?;
    let format = detect(&head);
    let input = io::Cursor::new(head).chain(input);
    let Some(format) = format else { return Ok(Box::new(input)) };
    Ok(match format {
        Format::Kernel(Compression::Zstd) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
        Format::Kernel(Compression::Gzip) => Box::new(Streams::<GzDecoder<_>, _>::new(input)),
        Format::Kernel(Compression::Xz) => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Format::Kernel(Compression::Lzma) => {
            let stream = Stream::new_lzma_decoder(XZ_MEMORY)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Format::Lzip => {
            let stream = Stream::new_lzip_decoder(XZ_MEMORY, CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Format::Kernel(Compression::Bzip2) => Box::new(Streams::<BzDecoder<_>, _>::new(input)),
        Format::Kernel(Compression::Lzo) => Box::new(lzop::Decoder::new(input)?.all()),
        Format::Kernel(Compression::Lz4) | Format::Lz4Frame => Box::new(lz4::Frames::new(input)),
        Format::Compress => Box::new(lzw::Decoder::new(input)?),
        Format::Kernel(Compression::None) => Box::new(input),
    })
}

/// The first bytes, behind frames that zstd and lz4 skip.
fn head(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    loop {
        input.by_ref().take(4).read_to_end(&mut head)?;
        if !is_skippable(&head) {
            input.by_ref().take((HEAD - head.len()) as u64).read_to_end(&mut head)?;
            return Ok(head);
        }
        head.clear();
        skip_frame(input)?;
    }
}

/// Whether this is the magic of a frame without data.
pub(super) fn is_skippable(magic: &[u8]) -> bool {
    matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Skips a frame without data, behind its magic.
pub(super) fn skip_frame(input: &mut impl Read) -> io::Result<()> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    io::copy(&mut input.take(u32::from_le_bytes(length).into()), &mut io::sink()).map(drop)
}
