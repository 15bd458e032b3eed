//! Compression formats of an initramfs, in the variants that the kernel's decompressors read.
//!
//! The kernel stops at the end of the first zstd frame, gzip member or xz stream, and takes what follows for
//! a new segment. So each segment is a single one. Every format but lzma and bzip2 is compressed by several
//! threads, and their number does not change the bytes.

pub(crate) mod ahead;
pub mod any;
mod gzip;
mod lz4;
mod lzop;
mod lzw;
mod parallel;
mod streams;
mod zstd;

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::thread;

use clap::ValueEnum;
use liblzma::stream::{Check, LzmaOptions, MtStreamBuilder, Stream};

use self::ahead::{Filled, Pieces};

/// How a segment is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// The default: unpacks fastest for its size
    Zstd,
    /// For kernels that support nothing else
    Gzip,
    /// Smallest and slowest
    Xz,
    /// The legacy frame of lz4 -l, the only one the kernel reads
    Lz4,
    /// No compression
    None,
    /// The old format of xz
    Lzma,
    /// Slow to unpack
    Bzip2,
    /// The format of lzop
    #[value(alias = "lzop")]
    Lzo,
}

/// Memory limit of the xz decompressor in bytes: three times what `xz -9` needs.
const XZ_MEMORY: u64 = 192 << 20;

impl Compression {
    /// The compression of a segment by its first bytes, after the kernel's table in `lib/decompress.c`.
    pub fn detect(start: &[u8]) -> Result<Compression, &'static str> {
        match start {
            [0x28, 0xb5, ..] => Ok(Compression::Zstd),
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0xfd, 0x37, ..] => Ok(Compression::Xz),
            [0x02, 0x21, ..] => Ok(Compression::Lz4),
            [0x5d, 0x00, ..] => Ok(Compression::Lzma),
            [0x04, 0x22, ..] => {
                Err("compressed with lz4 in its modern frame, which the kernel does not read (use lz4 -l)")
            }
            [b'B', b'Z', ..] => Ok(Compression::Bzip2),
            [0x89, 0x4c, ..] => Ok(Compression::Lzo),
            _ => Err("neither a cpio archive nor compressed by anything the kernel knows"),
        }
    }

    /// The compression that the ending of a name stands for.
    #[must_use]
    pub fn of_name(path: &Path) -> Option<Compression> {
        Some(match path.extension()?.to_str()? {
            "zst" => Compression::Zstd,
            "gz" => Compression::Gzip,
            "xz" => Compression::Xz,
            "lz4" => Compression::Lz4,
            "lzma" => Compression::Lzma,
            "bz2" => Compression::Bzip2,
            "lzo" => Compression::Lzo,
            _ => return None,
        })
    }

    /// The default level. For zstd, gzip and xz, that of initramfs-tools.
    #[must_use]
    pub fn default_level(self) -> u32 {
        match self {
            Compression::Zstd => 9,
            Compression::Gzip | Compression::Xz | Compression::Lzma => 6,
            Compression::Bzip2 => 9,
            Compression::Lz4 | Compression::None | Compression::Lzo => 0,
        }
    }

    /// The valid levels.
    #[must_use]
    pub fn levels(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Compression::Zstd => 1..=22,
            Compression::Gzip | Compression::Bzip2 => 1..=9,
            Compression::Xz | Compression::Lzma => 0..=9,
            Compression::Lz4 | Compression::None | Compression::Lzo => 0..=0,
        }
    }

    /// The zeros that the kernel needs behind a stream to find its end. lz4 has no end mark: a block of size
    /// 0 ends it, since 5.14 and in earlier kernels that have the fix.
    #[must_use]
    pub fn end_zeros(self) -> u64 {
        if self == Compression::Lz4 { 4 } else { 0 }
    }

    /// What one compressed stream holds. It leaves `input` right after the end of the stream.
    pub(crate) fn decoder<'a, R: BufRead + Send>(self, input: &'a mut R) -> io::Result<Box<dyn Pieces + 'a>> {
        let reader: Box<dyn Read + Send + 'a> = match self {
            Compression::Zstd => return Ok(Box::new(zstd::Decoder::new(input)?)),
            Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(input)),
            Compression::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, 0)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Compression::Lzma => {
                let stream = Stream::new_lzma_decoder(XZ_MEMORY)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Compression::Lz4 => Box::new(lz4::Decoder::new(input)?),
            Compression::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(input)),
            Compression::Lzo => Box::new(lzop::Decoder::new(input)?),
            Compression::None => Box::new(input),
        };
        Ok(Box::new(Filled::new(reader)))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::Zstd => "zstd",
            Compression::Gzip => "gzip",
            Compression::Xz => "xz",
            Compression::Lz4 => "lz4",
            Compression::None => "none",
            Compression::Lzma => "lzma",
            Compression::Bzip2 => "bzip2",
            Compression::Lzo => "lzo",
        })
    }
}

/// Compresses what is written to it.
pub enum Encoder<W: Write> {
    /// zstd, with the threads of the C library.
    Zstd(::zstd::stream::write::Encoder<'static, W>),
    /// gzip, block by block.
    Gzip(gzip::Encoder<W>),
    /// xz, with the threads of the C library, or lzma, which has one block only.
    Xz(Box<liblzma::write::XzEncoder<W>>),
    /// lz4, block by block.
    Lz4(parallel::Blocks<W>),
    /// bzip2: the kernel takes the second of several streams for a new segment, so one thread writes one.
    Bzip2(bzip2::write::BzEncoder<W>),
    /// The format of lzop, block by block.
    Lzo(parallel::Blocks<W>),
    /// No compression. Small writes are buffered.
    None(io::BufWriter<W>),
}

/// An output that knows how many bytes have been written.
pub trait Positioned: Write {
    /// That number.
    fn position(&self) -> u64;
}

/// As many copies of `unit` as bring `position` to a multiple of `block`. Both must have no common divisor.
fn filler(position: u64, block: u64, unit: &[u8]) -> Vec<u8> {
    let unit_size = unit.len() as u64;
    let counts = 0..block;
    let count = counts.into_iter().find(|count| (position + count * unit_size).is_multiple_of(block));
    unit.repeat(count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder")
    }
}

impl<W: Write> Encoder<W> {
    /// A compressor that writes to `out`.
    pub fn new(out: W, compression: Compression, level: u32) -> io::Result<Encoder<W>> {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let count = u32::try_from(threads).unwrap_or(1);
        Ok(match compression {
            Compression::Zstd => {
                let level = i32::try_from(level).map_err(io::Error::other)?;
                let mut encoder = ::zstd::stream::write::Encoder::new(out, level)?;
                encoder.include_checksum(true)?;
                // One CPU gets a worker thread too: without any, zstd produces different bytes.
                encoder.multithread(count)?;
                Encoder::Zstd(encoder)
            }
            Compression::Gzip => Encoder::Gzip(gzip::Encoder::new(out, level, threads)?),
            Compression::Xz => {
                // The kernel's decoder does not support CRC64. Blocks of a fixed size make the bytes
                // independent of the number of threads.
                let stream = MtStreamBuilder::new()
                    .preset(level)
                    .check(Check::Crc32)
                    .block_size(16 << 20)
                    .threads(count)
                    .encoder()?;
                Encoder::Xz(Box::new(liblzma::write::XzEncoder::new_stream(out, stream)))
            }
            Compression::Lz4 => Encoder::Lz4(lz4::encoder(out, threads)?),
            Compression::None => Encoder::None(io::BufWriter::with_capacity(256 << 10, out)),
            Compression::Lzma => {
                let stream = Stream::new_lzma_encoder(&LzmaOptions::new_preset(level)?)?;
                Encoder::Xz(Box::new(liblzma::write::XzEncoder::new_stream(out, stream)))
            }
            Compression::Bzip2 => {
                Encoder::Bzip2(bzip2::write::BzEncoder::new(out, bzip2::Compression::new(level)))
            }
            Compression::Lzo => Encoder::Lzo(lzop::encoder(out, threads)?),
        })
    }

    /// As [`finish`](Encoder::finish), but an image of this output can be followed by another archive: its
    /// size becomes a multiple of `block`, since an uncompressed archive must begin at a multiple of 4.
    ///
    /// zstd and gzip streams are filled up with empty blocks, because `zstd -d` reports zeros behind a stream
    /// as an error. Zeros follow everything else.
    pub fn finish_aligned(self, block: u64) -> io::Result<W>
    where
        W: Positioned,
    {
        /// A raw block of size 0.
        const EMPTY: &[u8] = &[0; 3];
        /// Bytes of the empty last block and the checksum.
        const END: u64 = 7;
        let mut zeros = 0;
        let mut out = match self {
            Encoder::Zstd(mut encoder) => {
                encoder.flush()?;
                let fill = filler(encoder.get_ref().position() + END, block, EMPTY);
                encoder.get_mut().write_all(&fill)?;
                encoder.finish()?
            }
            Encoder::Gzip(encoder) => encoder.finish_aligned(block)?,
            Encoder::Lz4(blocks) => {
                zeros = Compression::Lz4.end_zeros();
                blocks.finish()?
            }
            Encoder::Xz(_) | Encoder::Bzip2(_) | Encoder::Lzo(_) | Encoder::None(_) => self.finish()?,
        };
        let end = (out.position() + zeros).next_multiple_of(block);
        let fill = end - out.position();
        io::copy(&mut io::repeat(0).take(fill), &mut out)?;
        Ok(out)
    }

    /// Writes the rest and returns the output.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Encoder::Zstd(encoder) => encoder.finish(),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Xz(encoder) => encoder.finish(),
            Encoder::Lz4(blocks) => blocks.finish(),
            Encoder::Bzip2(encoder) => encoder.finish(),
            Encoder::Lzo(blocks) => lzop::finish(blocks),
            Encoder::None(out) => out.into_inner().map_err(io::IntoInnerError::into_error),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::Zstd(encoder) => encoder.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Xz(encoder) => encoder.write(bytes),
            Encoder::Lz4(blocks) | Encoder::Lzo(blocks) => blocks.write(bytes),
            Encoder::Bzip2(encoder) => encoder.write(bytes),
            Encoder::None(out) => out.write(bytes),
        }
    }

    /// Does nothing: flushing in the middle would make the output larger.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
