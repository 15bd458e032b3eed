//! The extended records of a PAX archive.
//!
//! A value can be any bytes: an attribute, an ACL as text, a name with a line feed. The tar crate splits
//! records at line feeds and would corrupt these, so they are located and read here.
#![expect(clippy::wildcard_enum_match_arm, reason = "the tar crate's entry types are not exhaustive")]

use std::io::{Read, Seek};

use anyhow::{Context, Result, ensure};
use tar::{Archive, EntryType};

use super::limits;

/// The location of the records of an entry.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Offset of the header of that entry.
    entry: u64,
    data: u64,
    len: u64,
}

/// The locations of all records of an archive.
#[derive(Debug, Default)]
pub struct Places(Vec<Place>);

impl Places {
    /// Locates them. An error in the archive ends the search: reading the entries will report it.
    pub fn find(archive: impl Read + Seek) -> Result<Places> {
        let mut archive = Archive::new(archive);
        let (mut places, mut pending) = (Vec::new(), None);
        for entry in archive.entries_with_seek()?.raw(true) {
            let Ok(entry) = entry else { break };
            match entry.header().entry_type() {
                EntryType::XHeader => {
                    pending = entry.header().entry_size().ok().map(|len| (entry.raw_file_position(), len));
                }
                EntryType::GNULongName | EntryType::GNULongLink | EntryType::XGlobalHeader => {}
                _ => {
                    let entry = entry.raw_header_position();
                    places.extend(pending.take().map(|(data, len)| Place { entry, data, len }));
                    ensure!(
                        places.len() <= limits::ENTRIES,
                        "too many entries: the limit is {}",
                        limits::ENTRIES
                    );
                }
            }
        }
        Ok(Places(places))
    }

    /// Offset and length of the records of the entry whose header is at `entry`.
    #[must_use]
    pub fn of(&self, entry: u64) -> Option<(u64, u64)> {
        let at = self.0.binary_search_by_key(&entry, |place| place.entry).ok()?;
        self.0.get(at).map(|place| (place.data, place.len))
    }
}

/// Keys and values.
pub type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Parses records: `LENGTH KEY=VALUE` and a line feed. The length counts all of that.
pub fn parse(mut bytes: &[u8]) -> Result<Records> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let record = record(bytes).context("corrupt PAX record")?;
        let (length, key, value) = record;
        records.push((key.to_vec(), value.to_vec()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

fn record(bytes: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((length, &record[..equals], &record[equals + 1..]))
}

/// The name of an attribute as [`unescaped`] reads it.
pub fn escaped(name: &[u8]) -> Vec<u8> {
    let byte = |byte: &u8| match byte {
        b'=' => b"%3D".to_vec(),
        b'%' => b"%25".to_vec(),
        other => vec![*other],
    };
    name.iter().flat_map(byte).collect()
}

/// The name of an attribute as GNU tar writes it: a key ends at the first `=`, so that is `%3D`, and `%` is
/// `%25`.
#[must_use]
pub fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        let (byte, behind) = match rest {
            [b'%', b'3', b'D', behind @ ..] => (b'=', behind),
            [b'%', b'2', b'5', behind @ ..] => (b'%', behind),
            _ => (*first, tail),
        };
        out.push(byte);
        rest = behind;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{parse, unescaped};

    #[test]
    fn names_are_those_that_gnu_tar_was_given() {
        assert_eq!(unescaped(b"user.a%3Db%253D%"), b"user.a=b%3D%");
    }

    #[test]
    fn lengths_divide_and_nothing_else() {
        let records = parse(b"13 a=\n12 b=c\n6 k=v\n5 e=\n").unwrap();
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b"\n12 b=c"), (b"k", b"v"), (b"e", b"")];
        assert!(records.iter().map(|(key, value)| (&key[..], &value[..])).eq(expected), "{records:?}");
        for bad in [
            &b"5 a=b\n"[..],
            b"99 a=b\n",
            b"6 ab\n\n",
            b"x a=b\n",
            b"0 a=b\n",
            b" ",
            b"18446744073709551615 a=b\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
