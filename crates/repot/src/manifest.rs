//! The attribute manifests `.repot-xattrs` and `.repot-xattrs-*`: extended attributes, which cpio cannot
//! hold, in the format of `getfattr --dump`. docs/tool/format.md describes them.
//!
//! An image can consist of several segments, each with a manifest under a name of its own. The init applies
//! them to the new tree after the move, in the order of the segments. A line that cannot be applied becomes a
//! warning: the kernel may lack a security module or a file system feature.

mod apply;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::display::Hex;
pub(crate) use apply::{apply, count, list};

/// The name in the root directory, and what the others begin with.
pub const NAME: &str = ".repot-xattrs";

/// The attribute of this name is not set. Its value is the [`stamp`] of the packed file: if a later segment
/// has replaced the file, the attributes are not for the new one.
pub const STAMP: &[u8] = b"trusted.repot.stamp";

/// Whether an entry of the root directory with this name is an attribute manifest.
pub fn is_name(name: &[u8]) -> bool {
    name.strip_prefix(NAME.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
}

/// The name of a manifest whose contents have this hash, and its modification time. If the unpacked manifest
/// has another time, the kernel keeps none (`CONFIG_INITRAMFS_PRESERVE_MTIME=n`).
pub fn name(hash: u32, mtime: u32) -> String {
    format!("{NAME}-{hash:08x}-{mtime:08x}")
}

/// The modification time in the name of a manifest.
fn time(name: &[u8]) -> Option<i64> {
    let digits = name.strip_prefix(NAME.as_bytes())?.rsplit(|byte| *byte == b'-').next()?;
    i64::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

/// What distinguishes the packed file from one that replaced it: the type, and for regular files and symbolic
/// links the size and the modification time.
pub fn stamp(mode: u32, size: u64, mtime: i64) -> String {
    match mode & 0o170_000 {
        kind @ (0o100_000 | 0o120_000) => format!("{kind:o} {size} {mtime}"),
        kind => format!("{kind:o}"),
    }
}

/// Whether two stamps are of the same file; without `times`, as far as that can be known.
pub fn same_stamp(one: &[u8], other: &[u8], times: bool) -> bool {
    let fields = if times { 3 } else { 2 };
    let part = |stamp| <[u8]>::split(stamp, |byte| *byte == b' ').take(fields);
    part(one).eq(part(other))
}

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

/// Appends the line with the stamp of the file. It is text, so that a person can read it.
pub fn write_stamp(text: &mut Vec<u8>, stamp: &str) {
    text.extend_from_slice(STAMP);
    text.extend_from_slice(format!("=\"{stamp}\"\n").as_bytes());
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
    fn a_stamp_is_that_of_one_file() {
        let packed = stamp(0o100_755, 5, 7);
        assert_eq!(packed, "100000 5 7");
        let is = |mode, size, mtime, times| {
            same_stamp(packed.as_bytes(), stamp(mode, size, mtime).as_bytes(), times)
        };
        assert!(is(0o100_644, 5, 7, true) && is(0o100_755, 5, 8, false));
        assert!(!is(0o100_755, 5, 8, true) && !is(0o100_755, 6, 7, false) && !is(0o040_755, 5, 7, false));
        let mut text = Vec::new();
        write_stamp(&mut text, &packed);
        let stamped = Line::Attribute(STAMP.to_vec(), packed.into_bytes());
        assert_eq!(line(text.trim_ascii()), Some(stamped));
    }

    #[test]
    fn the_name_of_a_manifest_has_its_time() {
        let name = name(0x12ab, 1_700_000_000);
        assert!(is_name(name.as_bytes()) && is_name(b".repot-xattrs") && !is_name(b".repot-xattrs.old"));
        assert_eq!((time(name.as_bytes()), time(b".repot-xattrs")), (Some(1_700_000_000), None));
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
