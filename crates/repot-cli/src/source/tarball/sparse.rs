//! Maps of sparse files: the old one of GNU tar, its three in PAX records, and that of Solaris.

use anyhow::{Context, Result, bail, ensure};
use repot::payload::archive::pax;

use super::header::{Header, number};
use super::{Range, limits};
use crate::source::pax::Records;
use crate::tree::Extent;

/// Offset and length of each piece of data.
pub(super) type Pieces = Vec<(u64, u64)>;

/// The map of a sparse file.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) pieces: Pieces,
    /// Bytes of the whole file.
    pub(super) size: u64,
    /// Whether the archive contains the holes too.
    pub(super) holes: bool,
}

/// The map in the header of an old GNU sparse file, which may continue in more blocks.
pub(super) fn old(header: &Header) -> Result<Map> {
    let size = number(&header.0[483..495]).and_then(|size| size.try_into().ok());
    let mut pieces = Pieces::new();
    entries(&header.0[386..482], &mut pieces)?;
    Ok(Map { pieces, size: size.context("invalid size of a sparse file")?, holes: false })
}

/// Whether another block of pieces follows the header.
pub(super) fn continues(header: &Header) -> bool {
    header.0[482] != 0
}

/// The pieces in one more block, and whether yet another follows.
pub(super) fn more(block: &Header, pieces: &mut Pieces) -> Result<bool> {
    entries(&block.0[..504], pieces)?;
    ensure!(pieces.len() as u64 <= limits::RECORDS / 16, "the map of a sparse file is too long");
    Ok(block.0[504] != 0)
}

fn entries(bytes: &[u8], pieces: &mut Pieces) -> Result<()> {
    for entry in bytes.chunks_exact(24) {
        if entry[12] == 0 {
            break;
        }
        let read = |field| number(field).and_then(|value| u64::try_from(value).ok());
        pieces.push(read(&entry[..12]).zip(read(&entry[12..])).context("corrupt map of a sparse file")?);
    }
    Ok(())
}

/// Whether the records describe a sparse file.
pub(super) fn described(records: &Records) -> bool {
    records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.") || key == b"SUN.holesdata")
}

/// The map in PAX records. A map in front of the data is read from `data`.
pub(super) fn recorded(records: &Records, stored: u64, data: &mut Range) -> Result<Map> {
    let last = |wanted: &[u8]| records.iter().rfind(|(key, _)| key == wanted).map(|(_, value)| &value[..]);
    let size = last(b"GNU.sparse.realsize").or(last(b"GNU.sparse.size"));
    let size = size.map(|size| pax::number(size).context("invalid size of a sparse file")).transpose()?;
    let mut pieces = Pieces::new();
    if let Some(text) = last(b"SUN.holesdata") {
        return solaris(text, stored);
    }
    let Some(size) = size else { bail!("the map of a sparse file has no size") };
    if last(b"GNU.sparse.major") == Some(b"1") {
        let mut lines = Lines { data, left: limits::RECORDS };
        let count = lines.number()?;
        for _ in 0..count {
            pieces.push((lines.number()?, lines.number()?));
        }
        data.to_block();
    } else if let Some(text) = last(b"GNU.sparse.map") {
        let numbers = text.split(|&byte| byte == b',').filter(|text| !text.is_empty()).map(pax::number);
        let numbers: Vec<u64> = numbers.collect::<Option<_>>().context("corrupt map of a sparse file")?;
        pieces.extend(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])));
    } else {
        let mut offset = None;
        for (key, value) in records {
            match &key[..] {
                b"GNU.sparse.offset" => offset = pax::number(value),
                b"GNU.sparse.numbytes" => {
                    let piece = offset.take().zip(pax::number(value));
                    pieces.push(piece.context("corrupt map of a sparse file")?);
                }
                _ => {}
            }
        }
    }
    Ok(Map { pieces, size, holes: false })
}

/// Solaris writes the offsets where data and holes begin, in turn, and last the size.
fn solaris(text: &[u8], stored: u64) -> Result<Map> {
    let numbers = text.split(|&byte| byte == b' ').filter(|text| !text.is_empty()).map(pax::number);
    let numbers: Option<Vec<u64>> = numbers.collect();
    let numbers = numbers.filter(|numbers| numbers.is_sorted() && numbers.last() == Some(&stored));
    let numbers = numbers.context("corrupt map of a sparse file")?;
    let pieces = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1] - pair[0])).collect();
    Ok(Map { pieces, size: stored, holes: true })
}

impl Map {
    /// The pieces with their places in the file, where the data begins at `position`.
    pub(super) fn place(&self, position: u64, stored: u64) -> Result<Vec<Extent>> {
        let (mut extents, mut used, mut end) = (Vec::new(), 0u64, 0u64);
        for &(offset, length) in &self.pieces {
            let start = if self.holes { offset } else { used };
            let after = offset.checked_add(length).filter(|after| *after <= self.size && offset >= end);
            let last = start.checked_add(length).filter(|last| *last <= stored);
            (end, used) = after.zip(last).context("corrupt map of a sparse file")?;
            if length > 0 {
                extents.push(Extent { offset, length, position: position + start });
            }
        }
        Ok(extents)
    }
}

/// The map in front of the data: decimal numbers on lines of their own, and comments.
struct Lines<'a> {
    data: &'a mut Range,
    left: u64,
}

impl Lines<'_> {
    fn number(&mut self) -> Result<u64> {
        let mut line = self.line()?;
        while line.starts_with(b"#") {
            line = self.line()?;
        }
        pax::number(&line).filter(|_| !line.is_empty()).context("corrupt map of a sparse file")
    }

    fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            self.left = self.left.checked_sub(1).context("the map of a sparse file is too long")?;
            match self.data.byte()? {
                Some(b'\n') => return Ok(line),
                Some(byte) => line.push(byte),
                None => bail!("corrupt map of a sparse file"),
            }
        }
    }
}
