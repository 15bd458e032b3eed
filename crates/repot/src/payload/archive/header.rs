//! A ustar header: one block of 512 bytes, with numbers in octal digits.

use alloc::vec::Vec;

use super::records::Records;
use super::{BLOCK, Entry, Kind, flaw, inner_path};
use crate::error::Fault;

/// A header whose checksum and format were checked.
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    pub(super) kind: u8,
    pub(super) size: u64,
}

impl<'a> Header<'a> {
    pub(super) fn read(block: &'a [u8; BLOCK]) -> Result<Self, Fault> {
        let header = Header { block, kind: block[156], size: 0 };
        let sum = |at: usize| if (148..156).contains(&at) { 32 } else { u64::from(block[at]) };
        let sum: u64 = (0..BLOCK).map(sum).sum();
        if octal(&block[148..156]) != Some(sum) {
            return flaw("header checksum mismatch:", &header.name());
        }
        if &block[257..265] != b"ustar\x0000" {
            return flaw("not a ustar header:", &header.name());
        }
        match octal(&block[124..136]) {
            Some(size) => Ok(Header { size, ..header }),
            None => flaw("malformed size of", &header.name()),
        }
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let (name, prefix) = (text(&self.block[..100]), text(&self.block[345..500]));
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    fn number(&self, at: core::ops::Range<usize>, name: &[u8]) -> Result<u32, Fault> {
        match octal(&self.block[at]).and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(number),
            None => flaw("malformed number in the header of", name),
        }
    }

    pub(super) fn entry(&self, records: Records) -> Result<Entry, Fault> {
        let name = records.path.unwrap_or_else(|| self.name());
        let kind = match (self.kind, records.socket) {
            (b'0', false) => Kind::File,
            (b'1', false) => Kind::Link,
            (b'2', false) => Kind::Symlink,
            (b'3', false) => Kind::Character,
            (b'4', false) => Kind::Block,
            (b'5', false) => Kind::Directory,
            (b'6', false) => Kind::Fifo,
            (b'6', true) => Kind::Socket,
            _ => return flaw("unexpected entry type:", &name),
        };
        let number = |at| self.number(at, &name);
        let mut entry = Entry {
            path: inner_path(&name, kind == Kind::Directory)?,
            kind,
            mode: number(100..108)?,
            uid: records.uid.map_or_else(|| number(108..116), Ok)?,
            gid: records.gid.map_or_else(|| number(116..124), Ok)?,
            modified: (0, 0),
            size: records.size.unwrap_or(self.size),
            target: records.target.unwrap_or_else(|| text(&self.block[157..257]).to_vec()),
            device: (number(329..337)?, number(337..345)?),
            xattrs: records.xattrs,
        };
        entry.modified = match records.modified {
            Some(time) => time,
            None => (octal(&self.block[136..148]).and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0),
        };
        let consistent = match kind {
            Kind::File => true,
            Kind::Link => entry.size == 0 && inner_path(&entry.target, false).is_ok(),
            Kind::Symlink => {
                entry.size == 0 && (1..4096).contains(&entry.target.len()) && !entry.target.contains(&0)
            }
            Kind::Character | Kind::Block | Kind::Directory | Kind::Fifo | Kind::Socket => entry.size == 0,
        };
        if !consistent || entry.mode > 0o7777 {
            return flaw("inconsistent header:", &name);
        }
        Ok(entry)
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Parses octal digits, followed only by NUL or space.
fn octal(field: &[u8]) -> Option<u64> {
    let end = field.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, padding) = field.split_at(end);
    if digits.is_empty() || padding.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        let digit = char::from(*digit).to_digit(8)?;
        sum.checked_mul(8)?.checked_add(digit.into())
    })
}
