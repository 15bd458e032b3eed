//! Locates the PAX records of an archive. The library parses them.
//!
//! A value can be any bytes: an attribute, an ACL as text, a name with a line feed. The tar crate splits
//! records at line feeds and would corrupt these, so they are located and read here.
#![expect(clippy::wildcard_enum_match_arm, reason = "the tar crate's entry types are not exhaustive")]

use std::io::{Read, Seek};

use anyhow::{Context, Result, ensure};
use repot::payload::archive::pax;
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

/// Parses the records of an entry, whatever their keys.
pub fn parse(bytes: &[u8]) -> Result<Records> {
    let records = pax::records(bytes);
    let owned = records.map(|record| record.map(|(key, value)| (key.to_vec(), value.to_vec())));
    owned.collect::<Option<_>>().context("corrupt PAX record")
}

/// Seconds and nanoseconds. More than nine digits behind the point are allowed and cut off.
#[must_use]
pub fn time(value: &[u8]) -> Option<(i64, u32)> {
    let point = value.iter().position(|&byte| byte == b'.').unwrap_or(value.len());
    pax::time(&value[..value.len().min(point + 10)])
}
