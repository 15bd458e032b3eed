//! The PAX records that a payload may have. Any other key makes the archive corrupt.

use alloc::vec::Vec;

use super::{flaw, pax};
use crate::error::Fault;

/// The values of an entry's records, which replace those of its header.
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

impl Records {
    pub(super) fn read(text: &[u8]) -> Result<Records, Fault> {
        let mut records = Records::default();
        for record in pax::records(text) {
            let Some((key, value)) = record else {
                return flaw("PAX record of wrong length", b"");
            };
            if records.set(key, value).is_none() {
                return flaw("unknown PAX record:", key);
            }
        }
        Ok(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if let Some(name) = key.strip_prefix(pax::XATTR) {
            if name.is_empty() || name.contains(&0) {
                return None;
            }
            self.xattrs.push((pax::decode(name), value.to_vec()));
            return Some(());
        }
        let number = || pax::number(value);
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.target = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(u32::try_from(number()?).ok()?),
            b"gid" => self.gid = Some(u32::try_from(number()?).ok()?),
            b"mtime" => self.modified = Some(pax::time(value)?),
            pax::FILETYPE if value == pax::SOCKET => self.socket = true,
            _ => return None,
        }
        Some(())
    }
}
