//! The attribute manifest `.repot-xattrs`: extended attributes, which cpio cannot hold, in the format of
//! `getfattr --dump`. docs/tool/format.md describes it.
//!
//! The init applies it to the new tree after the move. A line that cannot be applied becomes a warning: the
//! kernel may lack a security module or a file system feature.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags, chmod, fstat, openat2, setxattr};
use rustix::io::{Errno, read};

use crate::display::Hex;
use crate::error::{Fault, Step, What, retry_once};
use crate::skipped::{ACCESS_ACL, Skipped};

/// Its name in the root directory.
pub const NAME: &str = ".repot-xattrs";

/// The longest line: a name, and a value of 64 KiB in hexadecimal.
const LINE: usize = 2 * 65536 + 1024;

/// The limit of a path in one call, its NUL included (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// The line that begins a file's attributes begins with this.
pub const FILE: &[u8] = b"# file: ";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The attributes that follow are for this path.
    Path(Vec<u8>),
    /// An attribute and its value.
    Attribute(Vec<u8>, Vec<u8>),
    /// A blank line or a comment.
    Blank,
}

/// Parses one line, without its line feed; `None` if `getfattr` writes no such line.
pub fn line(text: &[u8]) -> Option<Line> {
    if let Some(path) = text.strip_prefix(FILE) {
        return Some(Line::Path(unescape(path)?));
    }
    if text.is_empty() || text.starts_with(b"#") {
        return Some(Line::Blank);
    }
    let at = text.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (unescape(&text[..at])?, &text[at + 1..]);
    let value = match value {
        [b'0', b'x' | b'X', digits @ ..] => hexadecimal(digits)?,
        [b'0', b's' | b'S', digits @ ..] => base64(digits)?,
        [b'"', text @ .., b'"'] => unescape(text)?,
        _ => return None,
    };
    Some(Line::Attribute(name, value))
}

/// Appends the line before the attributes of the file at `path`.
pub fn write_path(text: &mut Vec<u8>, path: &[u8]) {
    text.extend_from_slice(FILE);
    escape(text, path, b"\\\n\r");
    text.push(b'\n');
}

/// Appends the line of an attribute.
pub fn write_attribute(text: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    escape(text, name, b"\\\n\r=");
    text.extend_from_slice(format!("=0x{}\n", Hex(value)).as_bytes());
}

fn escape(text: &mut Vec<u8>, bytes: &[u8], special: &[u8]) {
    for byte in bytes {
        if special.contains(byte) {
            text.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        } else {
            text.push(*byte);
        }
    }
}

fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, rest) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            (b'\\', [byte @ (b'\\' | b'"'), tail @ ..]) => {
                out.push(*byte);
                rest = tail;
            }
            (b'\\', _) => return None,
            (byte, _) => out.push(*byte),
        }
    }
    Some(out)
}

fn hexadecimal(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let body = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    if !text.len().is_multiple_of(4) || body.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for group in body.chunks(4) {
        let mut bits = 0u32;
        for byte in group {
            bits = bits << 6 | u32::from(digit(*byte)?);
        }
        bits <<= 6 * (4 - group.len());
        let [_, bytes @ ..] = bits.to_be_bytes();
        out.extend_from_slice(&bytes[..group.len() - 1]);
    }
    Some(out)
}

/// Applies the manifest in `root` to the tree below it. Without a manifest it does nothing. The working
/// directory must be the root of a procfs.
///
/// Returns a warning for each line that could not be applied.
pub(crate) fn apply(root: BorrowedFd<'_>) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let skipped = Skipped::default();
    let failed = |call, path: &[u8], errno| {
        skipped.note(format!("{}", Fault { what: What::Call(call), path: path.to_vec(), errno }));
    };
    let file = match openat2(root, NAME, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => return Vec::new(),
        Err(errno) => {
            failed("openat2", NAME.as_bytes(), errno);
            return skipped.warnings(Step::Relocate);
        }
        Ok(file) => file,
    };
    let mut place: Option<(Vec<u8>, OwnedFd)> = None;
    let read = lines(&file, |number, text| match line(text) {
        Some(Line::Blank) => {}
        Some(Line::Path(path)) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            place = match open(root, &path, flags, resolve) {
                Ok(fd) => Some((path, fd)),
                Err(errno) => {
                    failed("openat2", &path, errno);
                    None
                }
            };
        }
        Some(Line::Attribute(name, value)) => {
            let Some((path, fd)) = &place else { return };
            // fsetxattr(2) refuses a descriptor with O_PATH, the only one that any kind of entry can be
            // opened with. The path of the descriptor in procfs works.
            let through = format!("self/fd/{}", fd.as_raw_fd());
            let name = CString::new(name).unwrap_or_default();
            let set = || setxattr(&through, &name, &value, XattrFlags::empty());
            let Err(errno) = retry_once(set) else { return };
            skipped.attribute(name.to_bytes(), path, errno);
            if name.to_bytes() == ACCESS_ACL
                && let Ok(status) = fstat(fd)
                && let Err(errno) = chmod(&through, Mode::from_raw_mode(status.st_mode) - Mode::RWXG)
            {
                failed("chmod", path, errno);
            }
        }
        None => skipped.note(format!("{NAME}:{number}: not a line of getfattr --dump, skipped")),
    });
    if let Err(errno) = read {
        failed("read", NAME.as_bytes(), errno);
    }
    skipped.warnings(Step::Relocate)
}

/// Opens `path` below `root`, which may be longer than the kernel takes at once.
fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let (mut at, mut rest): (Option<OwnedFd>, &[u8]) = (None, path);
    loop {
        let dir = at.as_ref().map_or(root, AsFd::as_fd);
        if rest.len() < PATH_MAX {
            return openat2(dir, rest, flags, Mode::empty(), resolve);
        }
        let slash = rest[..PATH_MAX].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        at = Some(openat2(dir, &rest[..slash], flags, Mode::empty(), resolve)?);
        rest = &rest[slash + 1..];
    }
}

/// Calls `visit` with each line and its number. The buffer grows to the longest line.
fn lines(file: &OwnedFd, mut visit: impl FnMut(usize, &[u8])) -> Result<(), Errno> {
    let mut buffer = vec![0; 4096];
    let (mut filled, mut number) = (0, 0);
    loop {
        if filled == buffer.len() {
            if filled >= LINE {
                return Err(Errno::TOOBIG);
            }
            buffer.resize(filled * 2, 0);
        }
        let count = match read(file, &mut buffer[filled..]) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        filled += count;
        let mut start = 0;
        while let Some(length) = buffer[start..filled].iter().position(|byte| *byte == b'\n') {
            number += 1;
            visit(number, &buffer[start..start + length]);
            start += length + 1;
        }
        if count == 0 {
            if start < filled {
                visit(number + 1, &buffer[start..filled]);
            }
            return Ok(());
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mut text = Vec::new();
        write_path(&mut text, b"srv/odd\nname\\=");
        write_attribute(&mut text, b"user.a=b\r", b"\x00\xff");
        assert_eq!(text, b"# file: srv/odd\\012name\\134=\nuser.a\\075b\\015=0x00ff\n");
        let lines: Vec<_> =
            text.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').map(line).collect();
        let (path, name, value) = (b"srv/odd\nname\\=", b"user.a=b\r", b"\x00\xff");
        let attribute = Line::Attribute(name.to_vec(), value.to_vec());
        assert_eq!(lines, [Some(Line::Path(path.to_vec())), Some(attribute)]);
    }

    #[test]
    fn reads_what_getfattr_writes() {
        let attribute = |name: &str, value: &[u8]| Some(Line::Attribute(name.into(), value.into()));
        assert_eq!(line(b"# file: srv/odd\\012name"), Some(Line::Path(b"srv/odd\nname".to_vec())));
        assert_eq!(line(b"user.note=0x68656c6C6f"), attribute("user.note", b"hello"));
        assert_eq!(line(b"user.note=0saGVsbG8="), attribute("user.note", b"hello"));
        assert_eq!(line(b"user.note=\"he\\\"llo\""), attribute("user.note", b"he\"llo"));
        assert_eq!(line(b"user.empty=0x"), attribute("user.empty", b""));
        assert_eq!(line(b"user.empty=0s"), attribute("user.empty", b""));
        assert_eq!(line(b""), Some(Line::Blank));
        for bad in
            [&b"user.note"[..], b"user.note=hello", b"user.note=0x6", b"user.note=0s6", b"# file: a\\9"]
        {
            assert_eq!(line(bad), None, "{bad:?}");
        }
    }
}
