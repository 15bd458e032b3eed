//! PAX records of a member. The library splits them.

use anyhow::{Context, Result};
use repot::payload::archive::pax;

/// Keys and values.
pub type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Parses the records of an entry, whatever their keys.
pub fn parse(bytes: &[u8]) -> Result<Records> {
    // Some programs fill the block up and count the zeros too.
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let bytes = &bytes[..end];
    let records = pax::records(bytes);
    let owned = records.map(|record| record.map(|(key, value)| (key.to_vec(), value.to_vec())));
    owned.collect::<Option<_>>().context("corrupt PAX record")
}

/// The last record with this key. An empty value takes back an earlier one.
pub(super) fn last<'a>(records: &'a Records, wanted: &[u8]) -> Option<&'a [u8]> {
    let found = records.iter().rfind(|(key, _)| key == wanted);
    found.map(|(_, value)| &value[..]).filter(|value| !value.is_empty())
}

/// Seconds and nanoseconds, which count forward from them. More than nine digits behind the point are allowed
/// and cut off.
#[must_use]
pub fn time(value: &[u8]) -> Option<(i64, u32)> {
    let point = value.iter().position(|&byte| byte == b'.').unwrap_or(value.len());
    let value = &value[..value.len().min(point + 10)];
    let Some(before) = value.strip_prefix(b"-") else { return pax::time(value) };
    match pax::time(before)? {
        (seconds, 0) => Some((-seconds, 0)),
        (seconds, nanoseconds) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

/// The value of a `LIBARCHIVE.xattr.` record, which is in base64 with or without padding.
#[must_use]
pub fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii_end();
    let end = text.iter().position(|&byte| byte == b'=').unwrap_or(text.len());
    if !text[end..].iter().all(|&byte| byte == b'=') {
        return None;
    }
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for &digit in &text[..end] {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// The name in the key of a `LIBARCHIVE.xattr.` record, in which `%` and two digits stand for a byte.
#[must_use]
pub fn percent(text: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        name.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_libarchive_are_decoded() {
        for text in ["aGVsbG8=", "aGVsbG8", "aGVsbG8=\n"] {
            assert_eq!(base64(text.as_bytes()).as_deref(), Some(&b"hello"[..]), "{text}");
        }
        assert_eq!(base64(b""), Some(Vec::new()));
        for bad in ["a b", "aGVs*G8=", "aG=VsbG8"] {
            assert_eq!(base64(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(percent(b"user.a%3Db%20%"), b"user.a=b %");
    }

    #[test]
    fn times_may_lie_before_1970() {
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-7"), Some((-7, 0)));
        assert_eq!(time(b"1.0000000009"), Some((1, 0)));
    }
}
