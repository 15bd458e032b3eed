//! The index as text: lines `KEY=VALUE`, in a fixed order.
//!
//! Parsing is pure and strict: the init frees memory by the index, so it must be unambiguous.

use alloc::string::String;
use core::fmt::Write;

use super::lines::{Flaw, Lines, number, numbers, xxh64};
use super::{CHUNK_SIZE, Chunk, Frame, Index, Module, Pages, hexadecimal, name};
use crate::display::Hex;

/// The version of the format.
const FORMAT: u64 = 2;

impl Index {
    /// Parses an index.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &[u8]) -> Result<Index, Flaw> {
        let mut lines = Lines { rest: text, number: 0 };
        match lines.number("format", "expected format=2")? {
            FORMAT => {}
            1 => return lines.flaw("format=1 is older than this program supports: pack the image again"),
            _ => return lines.flaw("format is newer than this program supports"),
        }
        lines.end(text)?;
        let mut index = Index {
            entries: lines.number("entries", "expected entries=NUMBER")?,
            bytes: lines.number("bytes", "expected bytes=NUMBER")?,
            pages: pages(&mut lines)?,
            inodes: lines.number("inodes", "expected inodes=NUMBER")?,
            largest: lines.number("largest", "expected largest=NUMBER")?,
            xattrs: lines.number("xattrs", "expected xattrs=NUMBER")?,
            ..Index::default()
        };
        let chunks = lines.number("chunks", "expected chunks=NUMBER")?;
        let frames = lines.number("frames", "expected frames=NUMBER")?;
        let total = index.parse_chunks(&mut lines, chunks)?;
        let (end, content) = index.parse_frames(&mut lines, frames, total)?;
        while !lines.rest.is_empty() {
            index.modules.push(module(&mut lines)?);
        }
        if end != total || frames < 2 {
            return lines.flaw("the frames do not cover all chunks");
        }
        // Every entry takes at least one block of the archive, and every page holds at least one byte. A
        // larger page holds one of the smaller ones, and no page is stored in more than its size.
        let Index { entries, bytes, pages, inodes, largest, xattrs, .. } = index;
        let possible = entries <= content / 512
            && bytes <= content
            && largest <= bytes
            && xattrs <= content.saturating_mul(2)
            && inodes <= entries + 1
            && pages.numbers[0] <= bytes / Pages::SIZES[0] + inodes
            && pages.numbers.is_sorted_by(|smaller, larger| smaller >= larger)
            && pages.zstd.max(pages.lz4) <= pages.bytes();
        if !possible {
            return lines.flaw("the totals exceed what the frames can hold");
        }
        Ok(index)
    }

    /// Parses `number` lines `chunk=`. Returns the size of all chunks, in bytes.
    fn parse_chunks(&mut self, lines: &mut Lines<'_>, number: u64) -> Result<u64, Flaw> {
        let mut total = 0u64;
        for at in 0..number {
            let chunk = chunk(lines, at, number)?;
            total += chunk.size;
            self.chunks.push(chunk);
        }
        Ok(total)
    }

    /// Parses `number` lines `frame=` or `more=`. Returns their compressed and their uncompressed size, in
    /// bytes.
    fn parse_frames(&mut self, lines: &mut Lines<'_>, number: u64, total: u64) -> Result<(u64, u64), Flaw> {
        let (mut end, mut content) = (0, 0u64);
        for at in 0..number {
            let frame = frame(lines, end, total)?;
            if frame.more && (at < 2 || at + 1 == number) {
                return lines
                    .flaw("the frames of directories and of hard links cannot come in pieces (more=)");
            }
            end = frame.end();
            content = content.saturating_add(frame.content);
            self.frames.push(frame);
        }
        Ok((end, content))
    }

    /// The index as text.
    pub fn text(&self) -> String {
        let Index { entries, bytes, pages, inodes, largest, xattrs, chunks, frames, modules } = self;
        let Pages { numbers: [small, medium, large], zstd, lz4 } = pages;
        let mut text = alloc::format!(
            "format={FORMAT}\nentries={entries}\nbytes={bytes}\npages={small} {medium} {large}\npaged={zstd} {lz4}\n\
             inodes={inodes}\nlargest={largest}\nxattrs={xattrs}\nchunks={}\nframes={}\n",
            chunks.len(),
            frames.len()
        );
        for (at, Chunk { size, sum, digest }) in chunks.iter().enumerate() {
            let _ = writeln!(text, "chunk={} {size} {sum:016x} {}", name(at), Hex(digest));
        }
        for Frame { start, size, content, more } in frames {
            let key = if *more { "more" } else { "frame" };
            let _ = writeln!(text, "{key}={start} {size} {content}");
        }
        for Module { digest, path } in modules {
            let _ = writeln!(text, "module={} {}", Hex(digest), String::from_utf8_lossy(path));
        }
        let sum = xxh64(text.as_bytes());
        let _ = writeln!(text, "xxh64={sum:016x}");
        text
    }
}

fn pages(lines: &mut Lines<'_>) -> Result<Pages, Flaw> {
    const NUMBERS: &str = "expected pages= with the number of pages of 4, 16 and 64 KiB";
    const BYTES: &str = "expected paged= with the bytes in zstd and in lz4";
    let numbers = numbers(lines.value("pages", NUMBERS)?).map_or_else(|| lines.flaw(NUMBERS), Ok)?;
    let [zstd, lz4] = self::numbers(lines.value("paged", BYTES)?).map_or_else(|| lines.flaw(BYTES), Ok)?;
    Ok(Pages { numbers, zstd, lz4 })
}

fn chunk(lines: &mut Lines<'_>, at: u64, of: u64) -> Result<Chunk, Flaw> {
    const WHAT: &str = "expected chunk=NAME SIZE XXH64 SHA256, in order";
    let value = lines.value("chunk", WHAT)?;
    let mut words = value.split(|byte| *byte == b' ');
    let wanted = usize::try_from(at).map(name).unwrap_or_default();
    let mut read = || {
        if words.next()? != wanted.as_bytes() {
            return None;
        }
        let size = number(words.next()?)?;
        let (sum, digest) = (hexadecimal(words.next()?)?, hexadecimal(words.next()?)?);
        words.next().is_none().then_some(Chunk { size, sum: u64::from_be_bytes(sum), digest })
    };
    let Some(chunk) = read() else { return lines.flaw(WHAT) };
    let last = at + 1 == of;
    if chunk.size == 0 || chunk.size > CHUNK_SIZE || (!last && chunk.size != CHUNK_SIZE) {
        return lines.flaw("every chunk must have 262144 bytes, only the last may be shorter");
    }
    Ok(chunk)
}

fn module(lines: &mut Lines<'_>) -> Result<Module, Flaw> {
    let value = lines.value("module", "unexpected line")?;
    let read = || {
        let (digest, path) = value.split_at_checked(64)?;
        let path = path.strip_prefix(b" ").filter(|path| Module::is_path(path))?.to_vec();
        Some(Module { digest: hexadecimal(digest)?, path })
    };
    read().map_or_else(|| lines.flaw("expected module=SHA256 RELEASE/NAME"), Ok)
}

fn frame(lines: &mut Lines<'_>, end: u64, total: u64) -> Result<Frame, Flaw> {
    const WHAT: &str = "expected frame= or more= with OFFSET SIZE CONTENT";
    let more = lines.rest.starts_with(b"more=");
    let value = lines.value(if more { "more" } else { "frame" }, WHAT)?;
    let Some([start, size, content]) = numbers(value) else { return lines.flaw(WHAT) };
    let frame = Frame { start, size, content, more };
    let valid = frame.size > 0 && frame.content > 0 && frame.content.is_multiple_of(512);
    if !valid || frame.start != end || frame.size > total - end {
        return lines.flaw("frames must follow one another and hold whole blocks of 512 bytes");
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    use crate::payload::index::Piece;

    fn sample() -> Index {
        Index {
            entries: 12,
            bytes: 2_345,
            pages: Pages { numbers: [4, 3, 3], zstd: 900, lz4: 1_200 },
            inodes: 11,
            largest: 2_000,
            xattrs: 96,
            chunks: vec![
                Chunk { size: CHUNK_SIZE, sum: 7, digest: [7; 32] },
                Chunk { size: 5, sum: 0xabcd, digest: [0xab; 32] },
            ],
            frames: vec![
                Frame { start: 0, size: 100, content: 1024, more: false },
                Frame { start: 100, size: CHUNK_SIZE - 100, content: 8192, more: false },
                Frame { start: CHUNK_SIZE, size: 5, content: 1024, more: false },
            ],
            modules: Vec::new(),
        }
    }

    #[test]
    fn modules_follow_the_frames() {
        let module = |path: &str| Module { digest: [9; 32], path: path.as_bytes().to_vec() };
        let index =
            Index { modules: vec![module("6.12.0/zram.ko"), module("6.12.0/zram.order")], ..sample() };
        assert_eq!(Index::parse(index.text().as_bytes()), Ok(index));
        for path in ["zram.ko", "../zram.ko", "6.12.0/", "6.12.0/./zram.ko", "/zram.ko", "a/b\rc"] {
            let index = Index { modules: vec![module(path)], ..sample() };
            assert!(Index::parse(index.text().as_bytes()).is_err(), "{path}");
        }
    }

    #[test]
    fn a_written_index_can_be_parsed() {
        let index = sample();
        assert_eq!(Index::parse(index.text().as_bytes()), Ok(index.clone()));
        assert_eq!(index.frames[1].chunks(), 0..=0);
        assert_eq!(index.frames[2].chunks(), 1..=1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn an_index_of_10_gib_is_within_the_limit() {
        const FRAME: u64 = 3 << 20;
        let chunk = Chunk { size: CHUNK_SIZE, sum: u64::MAX, digest: [0xff; 32] };
        let frame = |start| Frame { start, size: FRAME, content: 4 << 20, more: false };
        let end = 10 << 30;
        let index = Index {
            chunks: vec![chunk; usize::try_from(end / CHUNK_SIZE).expect("few")],
            frames: (0..end / FRAME).map(|number| frame(number * FRAME)).collect(),
            ..Index::default()
        };
        assert!(index.text().len() <= super::super::LIMIT);
    }

    #[test]
    fn pieces_belong_to_the_header_before_them() {
        let frame = |start, content, more| Frame { start, size: 10, content, more };
        let mut index =
            Index { chunks: vec![Chunk { size: 60, sum: 7, digest: [7; 32] }], ..Index::default() };
        index.frames = vec![
            frame(0, 512, false),
            frame(10, 1024, false),
            frame(20, 4096, true),
            frame(30, 1536, true),
            frame(40, 512, false),
            frame(50, 1024, false),
        ];
        assert_eq!(Index::parse(index.text().as_bytes()), Ok(index.clone()));
        assert_eq!([0, 1, 2, 3, 4, 9].map(|number| index.pieces(number)), [0, 2, 0, 0, 0, 0]);
        assert_eq!(index.piece(1), None);
        assert_eq!(index.piece(2), Some(Piece { header: 1, offset: 0, content: 4096, last: false }));
        assert_eq!(index.piece(3), Some(Piece { header: 1, offset: 4096, content: 1536, last: true }));
        for other in [0, 1, 5] {
            let mut index = index.clone();
            index.frames[other].more = true;
            assert!(Index::parse(index.text().as_bytes()).is_err(), "{other}");
        }
    }

    /// Appends the line with the XXH64.
    fn summed(lines: &str) -> String {
        alloc::format!("{lines}xxh64={:016x}\n", xxh64(lines.as_bytes()))
    }

    #[test]
    fn truncated_or_corrupt_text_is_refused() {
        let text = sample().text();
        // Miri is too slow for every position.
        let step = if cfg!(miri) { 29 } else { 1 };
        for end in (0..text.len()).step_by(step) {
            assert!(Index::parse(&text.as_bytes()[..end]).is_err(), "{}", &text[..end]);
        }
        assert!(Index::parse((text.clone() + "\n").as_bytes()).is_err());
        for at in (0..text.len()).step_by(step) {
            for bit in [1, 16] {
                let mut corrupt = text.clone().into_bytes();
                corrupt[at] ^= bit;
                assert!(Index::parse(&corrupt).is_err(), "{}", corrupt.escape_ascii());
            }
        }
    }

    #[test]
    fn inconsistent_values_are_refused() {
        let text = sample().text();
        let lines = &text[..text.len() - "xxh64=0123456789abcdef\n".len()];
        assert_eq!(summed(lines), text);
        let line = |lines: &str| Index::parse(summed(lines).as_bytes()).map_err(|flaw| flaw.line);
        assert_eq!(line(&alloc::format!("{lines}\n")), Err(16));
        for (from, to, at) in [
            ("format=2", "format=3", 1),
            ("format=2", "format=1", 1),
            ("entries=12", "entries=012", 2),
            ("entries=12", "entries=+12", 2),
            ("bytes=2345", "bytes=99999999999999999999", 3),
            ("bytes=2345", "bytes=99999", 15),
            ("pages=4 3 3", "pages=4 3", 4),
            ("pages=4 3 3", "pages=4 3 3 3", 4),
            ("pages=4 3 3", "pages=4 3 4", 15),
            ("pages=4 3 3", "pages=40 3 3", 15),
            ("paged=900 1200", "paged=900", 5),
            ("paged=900 1200", "paged=900 16385", 15),
            ("chunk=000001 5", "chunk=000002 5", 12),
            ("chunk=000000 262144", "chunk=000000 262143", 11),
            ("chunk=000001 5", "chunk=000001 0", 12),
            ("000000000000abcd", "000000000000abcD", 12),
            ("000000000000abcd", "abcd", 12),
            ("abab", "abaB", 12),
            ("frame=100 ", "frame=101 ", 14),
            ("frame=262144 5", "frame=262144 6", 15),
            ("frame=262144 5", "frame=262144 4", 15),
            ("frame=262144 5 1024", "frame=262144 5 1000", 15),
            ("frame=262144 5", "more=262144 5", 15),
            ("chunks=2", "chunks=18446744073709551615", 12),
        ] {
            assert!(lines.contains(from), "{from}");
            assert_eq!(line(&lines.replacen(from, to, 1)), Err(at), "{from} {to}");
        }
    }
}
