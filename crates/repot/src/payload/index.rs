//! The index of a payload: what is in it, its chunks and its frames, as lines `KEY=VALUE`.
//!
//! Pure, and as strict as can be: what the init frees memory by must leave no room for two opinions.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// A longer index is refused; this is enough for a payload of 10 GiB.
pub const LIMIT: usize = 4 << 20;
/// The size of a chunk, in bytes; the last one may be shorter.
pub const CHUNK: u64 = 256 << 10;
/// The largest window that a frame may ask for, as a power of two: it is what each thread holds in memory.
pub const WINDOW_LOG: u32 = 20;

/// What an index says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Names, directories included, the root not.
    pub entries: u64,
    /// The sum of the sizes of the files, each inode once, in bytes.
    pub bytes: u64,
    /// Pages of 4 KiB that a tmpfs needs for files and long symbolic links.
    pub pages: u64,
    /// Inodes, the root included.
    pub inodes: u64,
    /// The largest file, in bytes.
    pub largest: u64,
    /// What extended attributes take of a tmpfs's inodes, in bytes.
    pub xattrs: u64,
    /// The chunks, in order.
    pub chunks: Vec<Chunk>,
    /// The frames, in order: the directories; files and what else has one name; the further names.
    pub frames: Vec<Frame>,
}

/// A chunk. Its name is its number in at least six digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub digest: [u8; 32],
}

/// A frame of the compressed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it begins in the concatenation of the chunks.
    pub start: u64,
    /// How many bytes it has there.
    pub size: u64,
    /// How many bytes of archive it becomes.
    pub content: u64,
    /// Whether that goes on with the contents of the file whose header is the last frame before it that does not.
    pub more: bool,
}

/// A piece of a file whose header is a frame of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of the frame with the header.
    pub header: usize,
    /// Where in the file it begins.
    pub offset: u64,
    /// How many bytes of archive it is: of the file, and behind its last piece zeros up to a whole block.
    pub content: u64,
    /// Whether no piece follows.
    pub last: bool,
}

impl Frame {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }

    /// The numbers of the chunks that it is in, where all chunks but the last have the same size.
    pub fn chunks(&self) -> core::ops::RangeInclusive<usize> {
        let number = |at: u64| usize::try_from(at / CHUNK).unwrap_or(usize::MAX);
        number(self.start)..=number(self.end() - 1)
    }
}

/// The name of a chunk.
pub fn name(number: usize) -> String {
    alloc::format!("{number:06}")
}

/// Why an index makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The line, from 1 on.
    pub line: usize,
    /// What should have been there.
    pub what: &'static str,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index:{}: {}", self.line, self.what)
    }
}

/// The lines that are read so far.
struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    fn flaw<T>(&self, what: &'static str) -> Result<T, Flaw> {
        Err(Flaw { line: self.number, what })
    }

    /// The value of the next line, which must have this key.
    fn value(&mut self, key: &str, what: &'static str) -> Result<&'a [u8], Flaw> {
        self.number += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let Some((line, rest)) = end.and_then(|end| self.rest.split_at_checked(end)) else {
            return self.flaw(what);
        };
        self.rest = &rest[1..];
        match line.strip_prefix(key.as_bytes()).and_then(|line| line.strip_prefix(b"=")) {
            Some(value) => Ok(value),
            None => self.flaw(what),
        }
    }

    fn number(&mut self, key: &str, what: &'static str) -> Result<u64, Flaw> {
        let value = self.value(key, what)?;
        number(value).map_or_else(|| self.flaw(what), Ok)
    }
}

/// A number in the one way to write it.
fn number(text: &[u8]) -> Option<u64> {
    let plain = text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || !text.starts_with(b"0"));
    if plain { core::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// A SHA-256 in hexadecimal.
pub fn digest(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let mut out = [0; 32];
    if pairs.len() != out.len() {
        return None;
    }
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

/// Bytes in hexadecimal.
#[derive(Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// The first line that is not as it must be.
    pub fn parse(text: &[u8]) -> Result<Index, Flaw> {
        let mut lines = Lines { rest: text, number: 0 };
        if lines.number("format", "format=1 was expected")? != 1 {
            return lines.flaw("this format is newer than this program");
        }
        let mut index = Index {
            entries: lines.number("entries", "entries=NUMBER was expected")?,
            bytes: lines.number("bytes", "bytes=NUMBER was expected")?,
            pages: lines.number("pages", "pages=NUMBER was expected")?,
            inodes: lines.number("inodes", "inodes=NUMBER was expected")?,
            largest: lines.number("largest", "largest=NUMBER was expected")?,
            xattrs: lines.number("xattrs", "xattrs=NUMBER was expected")?,
            ..Index::default()
        };
        let chunks = lines.number("chunks", "chunks=NUMBER was expected")?;
        let frames = lines.number("frames", "frames=NUMBER was expected")?;
        let mut total = 0u64;
        for at in 0..chunks {
            let chunk = chunk(&mut lines, at, chunks)?;
            total += chunk.size;
            index.chunks.push(chunk);
        }
        let (mut end, mut content) = (0, 0u64);
        for at in 0..frames {
            let frame = frame(&mut lines, end, total)?;
            if frame.more && (at < 2 || at + 1 == frames) {
                return lines.flaw("neither the directories nor the further names come in pieces");
            }
            end = frame.end();
            content = content.saturating_add(frame.content);
            index.frames.push(frame);
        }
        if !lines.rest.is_empty() {
            lines.number += 1;
            return lines.flaw("nothing more was expected");
        }
        if end != total || frames < 2 {
            return lines.flaw("the frames are not all of the chunks");
        }
        // Every entry has a block of its own, and every page holds something.
        let Index { entries, bytes, pages, inodes, largest, xattrs, .. } = index;
        let possible = entries <= content / 512
            && bytes <= content
            && largest <= bytes
            && xattrs <= content.saturating_mul(2)
            && inodes <= entries + 1
            && pages <= bytes / 4096 + inodes;
        if !possible {
            return lines.flaw("more is promised than the frames can hold");
        }
        Ok(index)
    }

    /// The index as text.
    pub fn text(&self) -> String {
        let Index { entries, bytes, pages, inodes, largest, xattrs, chunks, frames } = self;
        let mut text = alloc::format!(
            "format=1\nentries={entries}\nbytes={bytes}\npages={pages}\ninodes={inodes}\nlargest={largest}\nxattrs={xattrs}\n\
             chunks={}\nframes={}\n",
            chunks.len(),
            frames.len()
        );
        for (at, Chunk { size, digest }) in chunks.iter().enumerate() {
            let _ = writeln!(text, "chunk={} {size} {}", name(at), Hex(digest));
        }
        for Frame { start, size, content, more } in frames {
            let key = if *more { "more" } else { "frame" };
            let _ = writeln!(text, "{key}={start} {size} {content}");
        }
        text
    }

    /// In how many pieces, each of them a frame, the contents of the file come whose header is this frame; 0 for any other frame.
    pub fn pieces(&self, header: usize) -> u32 {
        let is_header = self.frames.get(header).is_some_and(|frame| !frame.more);
        let behind = self.frames.iter().skip(header + 1).take_while(|frame| frame.more);
        if is_header { u32::try_from(behind.count()).unwrap_or(u32::MAX) } else { 0 }
    }

    /// What piece of a file this frame is.
    pub fn piece(&self, number: usize) -> Option<Piece> {
        let Frame { content, more: true, .. } = *self.frames.get(number)? else { return None };
        let header = self.frames[..number].iter().rposition(|frame| !frame.more)?;
        let before = self.frames[header + 1..number].iter();
        let offset = before.fold(0u64, |sum, frame| sum.saturating_add(frame.content));
        let last = self.frames.get(number + 1).is_none_or(|frame| !frame.more);
        Some(Piece { header, offset, content, last })
    }

    /// How many bytes all chunks have.
    pub fn compressed(&self) -> u64 {
        self.frames.last().map_or(0, Frame::end)
    }
}

fn chunk(lines: &mut Lines<'_>, at: u64, of: u64) -> Result<Chunk, Flaw> {
    const WHAT: &str = "chunk=NAME SIZE SHA256 was expected, in order";
    let value = lines.value("chunk", WHAT)?;
    let mut words = value.split(|byte| *byte == b' ');
    let wanted = usize::try_from(at).map(name).unwrap_or_default();
    let mut read = || {
        if words.next()? != wanted.as_bytes() {
            return None;
        }
        let (size, digest) = (number(words.next()?)?, digest(words.next()?)?);
        words.next().is_none().then_some(Chunk { size, digest })
    };
    let Some(chunk) = read() else { return lines.flaw(WHAT) };
    let last = at + 1 == of;
    if chunk.size == 0 || chunk.size > CHUNK || (!last && chunk.size != CHUNK) {
        return lines.flaw("every chunk but the last has 262144 bytes, and that not more");
    }
    Ok(chunk)
}

fn frame(lines: &mut Lines<'_>, end: u64, total: u64) -> Result<Frame, Flaw> {
    const WHAT: &str = "frame=OFFSET SIZE CONTENT was expected, or more=";
    let more = lines.rest.starts_with(b"more=");
    let value = lines.value(if more { "more" } else { "frame" }, WHAT)?;
    let mut words = value.split(|byte| *byte == b' ').map(number);
    let mut read = || {
        let frame = Frame { start: words.next()??, size: words.next()??, content: words.next()??, more };
        words.next().is_none().then_some(frame)
    };
    let Some(frame) = read() else { return lines.flaw(WHAT) };
    let whole = frame.size > 0 && frame.content > 0 && frame.content.is_multiple_of(512);
    if !whole || frame.start != end || frame.size > total - end {
        return lines
            .flaw("each frame begins where the one before it ended, and holds whole blocks of 512 bytes");
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn sample() -> Index {
        Index {
            entries: 12,
            bytes: 2_345,
            pages: 4,
            inodes: 11,
            largest: 2_000,
            xattrs: 96,
            chunks: vec![Chunk { size: CHUNK, digest: [7; 32] }, Chunk { size: 5, digest: [0xab; 32] }],
            frames: vec![
                Frame { start: 0, size: 100, content: 1024, more: false },
                Frame { start: 100, size: CHUNK - 100, content: 8192, more: false },
                Frame { start: CHUNK, size: 5, content: 1024, more: false },
            ],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let index = sample();
        assert_eq!(Index::parse(index.text().as_bytes()), Ok(index.clone()));
        assert_eq!(index.frames[1].chunks(), 0..=0);
        assert_eq!(index.frames[2].chunks(), 1..=1);
    }

    #[test]
    fn pieces_are_numbered_from_their_header_on() {
        let frame = |start, content, more| Frame { start, size: 10, content, more };
        let mut index = Index { chunks: vec![Chunk { size: 60, digest: [7; 32] }], ..Index::default() };
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

    #[test]
    fn what_is_cut_off_changed_or_more_is_refused() {
        let text = sample().text();
        for end in 0..text.len() {
            assert!(Index::parse(&text.as_bytes()[..end]).is_err(), "{}", &text[..end]);
        }
        let line = |text: &str| Index::parse(text.as_bytes()).map_err(|flaw| flaw.line);
        assert_eq!(line(&(text.clone() + "\n")), Err(15));
        for (from, to, at) in [
            ("format=1", "format=2", 1),
            ("entries=12", "entries=012", 2),
            ("entries=12", "entries=+12", 2),
            ("bytes=2345", "bytes=99999999999999999999", 3),
            ("bytes=2345", "bytes=99999", 14),
            ("chunk=000001 5", "chunk=000002 5", 11),
            ("chunk=000000 262144", "chunk=000000 262143", 10),
            ("chunk=000001 5", "chunk=000001 0", 11),
            ("abab", "abaB", 11),
            ("frame=100 ", "frame=101 ", 13),
            ("frame=262144 5", "frame=262144 6", 14),
            ("frame=262144 5", "frame=262144 4", 14),
            ("frame=262144 5 1024", "frame=262144 5 1000", 14),
            ("chunks=2", "chunks=18446744073709551615", 11),
        ] {
            assert!(text.contains(from), "{from}");
            assert_eq!(line(&text.replacen(from, to, 1)), Err(at), "{from} {to}");
        }
    }
}
