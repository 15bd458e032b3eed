//! PAX records: what a ustar header has no room for, as `LENGTH KEY=VALUE` lines.

use alloc::vec::Vec;

use super::flaw;
use crate::error::Fault;

/// What PAX records say.
#[derive(Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) modified: Option<(i64, u32)>,
    pub(super) socket: bool,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The name of an attribute: a key ends at the first `=`, so GNU tar writes that as `%3D`, and `%` as `%25`.
fn attribute(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, more @ ..] = rest {
        let (byte, more) = match rest {
            [b'%', b'3', b'D', more @ ..] => (b'=', more),
            [b'%', b'2', b'5', more @ ..] => (b'%', more),
            _ => (*first, more),
        };
        plain.push(byte);
        rest = more;
    }
    plain
}

impl Records {
    pub(super) fn read(text: &[u8]) -> Result<Records, Fault> {
        let mut records = Records::default();
        let mut rest = text;
        while !rest.is_empty() {
            let Some((key, value, more)) = record(rest) else {
                return flaw("PAX record of wrong length", b"");
            };
            rest = more;
            if records.set(key, value).is_none() {
                return flaw("unknown PAX record:", key);
            }
        }
        Ok(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if name.is_empty() || name.contains(&0) {
                return None;
            }
            self.xattrs.push((attribute(name), value.to_vec()));
            return Some(());
        }
        let number = || core::str::from_utf8(value).ok()?.parse::<u64>().ok();
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.target = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(u32::try_from(number()?).ok()?),
            b"gid" => self.gid = Some(u32::try_from(number()?).ok()?),
            b"mtime" => self.modified = Some(time(value)?),
            b"SCHILY.filetype" if value == b"socket" => self.socket = true,
            _ => return None,
        }
        Some(())
    }
}

/// The first record: `LENGTH KEY=VALUE\n`, its length counting all of it.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = core::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
    let (record, rest) = text.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// Seconds with up to nine digits behind the point.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = core::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) || seconds.starts_with('-') {
        return None;
    }
    let scale = 10u32.pow(9 - u32::try_from(fraction.len()).ok()?);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u32>().ok()? };
    Some((seconds.parse().ok()?, fraction * scale))
}
