//! PAX records in a tar archive: `LENGTH KEY=VALUE` lines for what a ustar header cannot hold.
//!
//! A value can be any bytes, line feeds included. Which keys are allowed is up to the reader.

use alloc::vec::Vec;
use core::fmt::Write;

/// The key of an extended attribute begins with this; the rest is the [encoded](encode) name.
pub const XATTR: &[u8] = b"SCHILY.xattr.";
/// The key that makes a fifo a socket, with the value [`SOCKET`]. tar has no type for sockets; star added it.
pub const FILETYPE: &[u8] = b"SCHILY.filetype";
/// See [`FILETYPE`].
pub const SOCKET: &[u8] = b"socket";

/// Key and value.
pub type Record<'a> = (&'a [u8], &'a [u8]);

/// The most digits in a length: those of `u64::MAX`.
const DIGITS: usize = 20;

/// The records in a text. The last item is `None` if the text is corrupt.
pub fn records(text: &[u8]) -> impl Iterator<Item = Option<Record<'_>>> {
    let mut rest = text;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((record, more)) = first(rest) else {
            rest = &[];
            return Some(None);
        };
        rest = more;
        Some(Some(record))
    })
}

/// The first record and what follows it. Its length counts the whole record, its own digits included.
fn first(text: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = text.iter().take(DIGITS + 1).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&text[..space])?).ok()?;
    let (record, rest) = text.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some(((&record[..equals], &record[equals + 1..]), rest))
}

/// Appends a record.
pub fn write(text: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let digits = |length: usize| length.checked_ilog10().map_or(1, |log| log as usize + 1);
    // A space, an equals sign, a line feed.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    let mut prefix = alloc::string::String::new();
    // Writing to a string cannot fail.
    let _ = write!(prefix, "{length} ");
    for part in [prefix.as_bytes(), key, b"=", value, b"\n"] {
        text.extend_from_slice(part);
    }
}

/// A decimal number without a sign.
pub fn number(value: &[u8]) -> Option<u64> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(value).ok()?.parse().ok()
}

/// Seconds and nanoseconds. `None` for times before 1970 and for more than nine digits behind the point.
pub fn time(value: &[u8]) -> Option<(i64, u32)> {
    let point = value.iter().position(|byte| *byte == b'.');
    let (seconds, fraction) = match point {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &b""[..]),
    };
    let scale = 10u64.pow(9u32.checked_sub(u32::try_from(fraction.len()).ok()?)?);
    let fraction = if fraction.is_empty() { 0 } else { number(fraction)? };
    Some((number(seconds)?.try_into().ok()?, (fraction * scale).try_into().ok()?))
}

/// The name of an attribute as part of a key. A key ends at the first `=`, so GNU tar writes `=` as `%3D` and
/// `%` as `%25`.
pub fn encode(name: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'=' => encoded.extend_from_slice(b"%3D"),
            b'%' => encoded.extend_from_slice(b"%25"),
            other => encoded.push(*other),
        }
    }
    encoded
}

/// The name that [`encode`] was given. Any other `%` stands for itself.
pub fn decode(encoded: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [first, tail @ ..] = rest {
        let (byte, more) = match rest {
            [b'%', b'3', b'D', more @ ..] => (b'=', more),
            [b'%', b'2', b'5', more @ ..] => (b'%', more),
            _ => (*first, tail),
        };
        name.push(byte);
        rest = more;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
        records(text).collect()
    }

    #[test]
    fn names_are_those_that_gnu_tar_was_given() {
        assert_eq!(decode(b"user.a%3Db%253D%"), b"user.a=b%3D%");
        assert_eq!(decode(&encode(b"user.a=b%3D%")), b"user.a=b%3D%");
    }

    #[test]
    fn lengths_divide_and_nothing_else() {
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b"\n12 b=c"), (b"k", b"v"), (b"e", b"")];
        assert_eq!(all(b"13 a=\n12 b=c\n6 k=v\n5 e=\n").as_deref(), Some(&expected[..]));
        for bad in [
            &b"5 a=b\n"[..],
            b"99 a=b\n",
            b"6 ab\n\n",
            b"x a=b\n",
            b"+6 a=b\n",
            b"0 a=b\n",
            b" ",
            b"18446744073709551615 a=b\n",
        ] {
            assert_eq!(all(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn records_of_every_length_are_read_back() {
        for length in (0..130).chain(980..1010) {
            let value = alloc::vec![b'\n'; length];
            let mut text = Vec::new();
            write(&mut text, b"key", &value);
            write(&mut text, b"next", b"");
            assert_eq!(all(&text), Some(alloc::vec![(&b"key"[..], &value[..]), (b"next", b"")]), "{length}");
        }
    }

    #[test]
    fn times_have_nine_digits_behind_the_point() {
        assert_eq!(time(b"12"), Some((12, 0)));
        assert_eq!(time(b"12."), Some((12, 0)));
        assert_eq!(time(b"12.0000005"), Some((12, 500)));
        assert_eq!(time(b"12.999999999"), Some((12, 999_999_999)));
        for bad in [&b""[..], b".", b"-1", b"1.-5", b"1.0000000000", b"9223372036854775808", b"+1"] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }
}
