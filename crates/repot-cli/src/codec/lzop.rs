//! The format of lzop(1), which the kernel calls lzo: a header, then blocks of LZO1X.

use std::io::{self, BufRead, Read, Write};

use super::parallel::Blocks;

/// The first bytes of a file.
pub(super) const MAGIC: [u8; 9] = *b"\x89LZO\0\r\n\x1a\n";

/// `F_ADLER32_D` and so on, of lzop's header.
const ADLER_UNPACKED: u32 = 0x1;
const ADLER_PACKED: u32 = 0x2;
const EXTRA: u32 = 0x40;
const CRC_UNPACKED: u32 = 0x100;
const CRC_PACKED: u32 = 0x200;
const FILTER: u32 = 0x800;

/// Maximum size of a block in bytes: lzop writes 256 KiB and reads 64 MiB.
const BLOCK: u32 = 64 << 20;

/// Bytes of a block that is written: the kernel reads no larger ones.
const WRITTEN: usize = 256 << 10;

/// What follows the magic: the version of lzop and of its library, the version that is needed, LZO1X-1 at its
/// usual level, a checksum of the contents of each block, as lzop itself writes it; then a mode, a time and a
/// name, which nothing reads. The kernel reads files with exactly this checksum (`lib/decompress_unlzo.c`).
const HEADER: [u8; 25] =
    [0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, 1, 5, 3, 0, 0, 1, 0, 0, 0x81, 0xa4, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Writes one file of lzop. End it with [`finish`].
pub(super) fn encoder<W: Write>(mut out: W, threads: usize) -> io::Result<Blocks<W>> {
    out.write_all(&MAGIC)?;
    out.write_all(&HEADER)?;
    out.write_all(&adler32(&HEADER).to_be_bytes())?;
    Ok(Blocks::new(out, WRITTEN, threads, |block| {
        let packed = lzokay::compress::compress(block);
        let mut packed =
            packed.map_err(|error| io::Error::other(format!("cannot compress lzo: {error:?}")))?;
        if packed.len() >= block.len() {
            // Equal sizes mean that nothing is compressed.
            packed = block.to_vec();
        }
        let mut bytes = Vec::with_capacity(12 + packed.len());
        for number in [block.len(), packed.len()] {
            bytes.extend(u32::try_from(number).map_err(io::Error::other)?.to_be_bytes());
        }
        bytes.extend(adler32(block).to_be_bytes());
        bytes.extend(packed);
        Ok(bytes)
    }))
}

/// Writes the rest, and the end of the file.
pub(super) fn finish<W: Write>(blocks: Blocks<W>) -> io::Result<W> {
    let mut out = blocks.finish()?;
    out.write_all(&[0; 4])?;
    Ok(out)
}

/// Reads one file of lzop.
#[derive(Debug)]
pub(super) struct Decoder<R> {
    input: R,
    flags: u32,
    several: bool,
    block: Vec<u8>,
    read: usize,
    ended: bool,
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(input: R) -> io::Result<Decoder<R>> {
        let mut decoder =
            Decoder { input, flags: 0, several: false, block: Vec::new(), read: 0, ended: false };
        decoder.header()?;
        Ok(decoder)
    }

    /// The same reader for all of several files that follow each other.
    pub(super) fn all(mut self) -> Decoder<R> {
        self.several = true;
        self
    }

    /// Ends a file, and begins the next if there is one.
    fn end(&mut self) -> io::Result<bool> {
        if self.several && self.input.fill_buf()?.first() == Some(&MAGIC[0]) {
            self.header()?;
            return Ok(true);
        }
        self.ended = true;
        Ok(false)
    }

    fn header(&mut self) -> io::Result<()> {
        let magic: [u8; 9] = self.bytes()?;
        if magic != MAGIC {
            return Err(invalid("not a header of lzop"));
        }
        let version = u16::from_be_bytes(self.bytes()?);
        let _library: [u8; 2] = self.bytes()?;
        let recent = version >= 0x0940;
        if recent {
            let _needed: [u8; 2] = self.bytes()?;
        }
        let [method] = self.bytes()?;
        if !(1..=3).contains(&method) {
            return Err(invalid("an unknown method of lzop"));
        }
        if recent {
            let _level: [u8; 1] = self.bytes()?;
        }
        self.flags = self.number()?;
        if self.flags & FILTER != 0 {
            return Err(invalid("a filter of lzop, which repot does not support"));
        }
        let _mode_and_time: [u8; 8] = self.bytes()?;
        if recent {
            let _time: [u8; 4] = self.bytes()?;
        }
        let [name] = self.bytes()?;
        self.skip(u64::from(name) + 4)?;
        if self.flags & EXTRA != 0 {
            let length = self.number()?;
            self.skip(u64::from(length) + 4)?;
        }
        Ok(())
    }

    /// Decompresses the next block. Returns false at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        let unpacked = self.number()?;
        if unpacked == 0 {
            return Ok(false);
        }
        let packed = self.number()?;
        if unpacked > BLOCK || packed > unpacked {
            return Err(invalid("a block of impossible size"));
        }
        let adler = if self.flags & ADLER_UNPACKED != 0 { Some(self.number()?) } else { None };
        let crc = if self.flags & CRC_UNPACKED != 0 { Some(self.number()?) } else { None };
        for flag in [ADLER_PACKED, CRC_PACKED] {
            if self.flags & flag != 0 && packed < unpacked {
                self.skip(4)?;
            }
        }
        let mut bytes = Vec::new();
        (&mut self.input).take(packed.into()).read_to_end(&mut bytes)?;
        if bytes.len() != packed as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if packed == unpacked {
            self.block = bytes;
        } else {
            self.block.resize(unpacked as usize, 0);
            let got = lzokay::decompress::decompress(&bytes, &mut self.block);
            if got.ok() != Some(self.block.len()) {
                return Err(invalid("a corrupt block"));
            }
        }
        let mut sum = flate2::Crc::new();
        sum.update(&self.block);
        if adler.is_some_and(|adler| adler != adler32(&self.block)) || crc.is_some_and(|crc| crc != sum.sum())
        {
            return Err(invalid("a block with a wrong checksum"));
        }
        self.read = 0;
        Ok(true)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.input).take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.block.len() {
            if self.ended || !self.next_block()? && !self.end()? {
                return Ok(0);
            }
        }
        let count = buffer.len().min(self.block.len() - self.read);
        buffer[..count].copy_from_slice(&self.block[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (1u32, 0u32);
    // This many bytes cannot overflow the sums.
    for part in bytes.chunks(5552) {
        for &byte in part {
            low += u32::from(byte);
            high += low;
        }
        (low, high) = (low % 65521, high % 65521);
    }
    high << 16 | low
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as lzop writes it, with one block for each part. Blocks that do not shrink are stored.
    fn lzop(parts: &[&[u8]], adler: bool) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, 1, 5]);
        out.extend(if adler { ADLER_UNPACKED | CRC_UNPACKED } else { 0 }.to_be_bytes());
        out.extend([0; 12]);
        out.extend([4, b'n', b'a', b'm', b'e', 0, 0, 0, 0]);
        for part in parts {
            let packed = lzokay::compress::compress(part).unwrap();
            let data = if packed.len() < part.len() { &packed } else { *part };
            out.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            if adler {
                let mut crc = flate2::Crc::new();
                crc.update(part);
                out.extend(adler32(part).to_be_bytes());
                out.extend(crc.sum().to_be_bytes());
            }
            out.extend(data);
        }
        out.extend([0; 4]);
        out
    }

    fn read(bytes: &[u8], all: bool) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let decoder = Decoder::new(bytes)?;
        let mut decoder = if all { decoder.all() } else { decoder };
        decoder.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn blocks_and_files_that_follow_each_other_are_read() {
        let long = b"lzo ".repeat(9000);
        let one = lzop(&[&long, b"short", b"x"], true);
        let whole = [&long[..], b"shortx"].concat();
        assert!(read(&one, false).unwrap() == whole);
        let two = [one, lzop(&[b"more"], false)].concat();
        assert!(read(&two, false).unwrap() == whole);
        assert!(read(&two, true).unwrap() == [&whole[..], b"more"].concat());
    }

    #[test]
    fn corrupt_blocks_are_errors() {
        let good = lzop(&[&b"lzo ".repeat(100)], true);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
        for at in [0, 15, good.len() - 10, good.len() - 30] {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            assert!(read(&bad, false).is_err(), "{at}");
        }
        for end in 0..good.len() {
            assert!(read(&good[..end], false).is_err(), "{end}");
        }
    }
}
