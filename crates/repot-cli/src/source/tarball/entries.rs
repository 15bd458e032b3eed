//! Reads the members of an archive in order, as GNU tar and bsdtar do.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use repot::payload::archive::pax::number;

use super::header::{BLOCK, Dialect, Header};
use super::member::Member;
use super::range::Range;
use super::{limits, sparse};
use crate::report::name::shown;
use crate::source::magic;
use crate::source::pax::{self, Records, last};

/// Bytes of global records. Each member gets a copy.
const GLOBALS: u64 = 64 << 10;

/// What comes next in an archive.
#[derive(Debug)]
pub(super) enum Next {
    /// A member.
    Member(Box<Member>),
    /// A member that is no file: its name and why it is left out.
    Skipped(Vec<u8>, String),
    /// The end.
    End(End),
}

/// How an archive ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With blocks of zeros, as it must.
    Marked,
    /// With zeros, behind which other data follows at this offset.
    Followed(u64),
    /// With the file.
    Missing,
}

/// What precedes a member and describes it.
#[derive(Debug, Default)]
struct Prefix {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: Records,
    acls: Vec<Vec<u8>>,
    /// Bytes of all of it.
    bytes: u64,
}

/// The members of an archive.
#[derive(Debug)]
pub(super) struct Entries {
    file: Arc<File>,
    len: u64,
    /// Offset of the next header.
    at: u64,
    /// The global records.
    globals: Records,
    /// Whether records were seen, so that links may carry data.
    pax: bool,
}

impl Entries {
    pub(super) fn new(file: Arc<File>, len: u64) -> Entries {
        Entries { file, len, at: 0, globals: Records::new(), pax: false }
    }

    /// The offset of the next header.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next member, or the end.
    pub(super) fn next(&mut self) -> Result<Next> {
        let mut prefix = Prefix::default();
        loop {
            let Some(header) = self.header()? else { return Ok(Next::End(End::Missing)) };
            if header.is_zero() {
                return self.end();
            }
            if !header.is_valid() {
                ensure!(self.at > 0, magic::not_a_tar(&self.file));
                bail!("corrupt at byte {}: this is no header of a member", self.at);
            }
            self.at += BLOCK;
            match header.kind() {
                b'L' => prefix.name = Some(name(self.text(&header, &mut prefix.bytes)?)),
                b'K' => prefix.target = Some(name(self.text(&header, &mut prefix.bytes)?)),
                b'A' => {
                    let text = self.text(&header, &mut prefix.bytes)?;
                    prefix.acls.push(text);
                }
                b'x' | b'X' => {
                    let text = self.text(&header, &mut prefix.bytes)?;
                    prefix.records.extend(pax::parse(&text)?);
                    self.pax = true;
                }
                b'g' => {
                    let text = self.text(&header, &mut prefix.bytes)?;
                    self.globals.extend(pax::parse(&text)?);
                    let words = self.globals.iter().map(|(key, value)| (key.len() + value.len()) as u64);
                    ensure!(words.sum::<u64>() <= GLOBALS, "the global records are too long");
                    self.pax = true;
                }
                // A label is the name of the archive, not of a file.
                b'V' => self.skip(&header)?,
                b'E' | b'N' => {
                    let what = if header.kind() == b'E' {
                        "extended attributes of Solaris, which Linux does not have"
                    } else {
                        "a list of long names in a format that GNU tar has given up"
                    };
                    self.skip(&header)?;
                    return Ok(Next::Skipped(header.name(), what.into()));
                }
                _ => return self.member(header, prefix).map(|member| Next::Member(Box::new(member))),
            }
        }
    }

    fn member(&mut self, header: Header, prefix: Prefix) -> Result<Member> {
        let Prefix { name, target, records, acls, .. } = prefix;
        let records: Records = self.globals.iter().cloned().chain(records).collect();
        let record = |key: &[u8]| last(&records, key).map(<[u8]>::to_vec);
        let name = record(b"path").or(name).unwrap_or_else(|| header.name());
        let name = record(b"GNU.sparse.name").unwrap_or(name);
        let target = record(b"linkpath").or(target).unwrap_or_else(|| header.target().to_vec());
        let shown = shown(&name);
        let held = header.size().and_then(|size| size.try_into().ok());
        let size = match record(b"size") {
            // Old versions of libarchive write the size of the whole file here.
            Some(size) if record(b"GNU.sparse.realsize").as_ref() == Some(&size) && held > Some(0) => held,
            Some(size) => number(&size),
            None => held,
        };
        let size = size.with_context(|| format!("\"{shown}\": invalid size"))?;
        let kind = header.kind_of(&name);
        let mut stored = self.stored(&header, kind, size)?;
        let end = |at: u64| at.checked_add(stored).filter(|end| *end <= self.len);
        let map = match kind {
            b'S' => Some(self.old_map(&header).with_context(|| format!("\"{shown}\""))?),
            b'0' if sparse::described(&records) => {
                ensure!(end(self.at).is_some(), "truncated at byte {}, in the data of \"{shown}\"", self.len);
                let mut data = Range::new(self.file.clone(), self.at, stored);
                let map = sparse::recorded(&records, stored, &mut data);
                let map = map.with_context(|| format!("\"{shown}\""))?;
                let used = data.consumed().min(stored);
                (self.at, stored) = (self.at + used, stored - used);
                Some(map)
            }
            _ => None,
        };
        let position = self.at;
        let end = position.checked_add(stored).filter(|end| *end <= self.len);
        let end = end.with_context(|| format!("truncated at byte {}, in the data of \"{shown}\"", self.len));
        self.at = end?.next_multiple_of(BLOCK).min(self.len);
        let sparse = match map {
            Some(map) => {
                let extents = map.place(position, stored).with_context(|| format!("\"{shown}\""))?;
                Some((map.size, extents))
            }
            None => None,
        };
        Ok(Member { header, name, target, records, solaris_acls: acls, position, stored, sparse })
    }

    /// Bytes of data of a member. Many programs give a size to members that have no data, and only those
    /// that write PAX give data to links.
    fn stored(&self, header: &Header, kind: u8, size: u64) -> Result<u64> {
        let empty = match kind {
            b'1' if !self.pax => header.dialect() != Dialect::Ustar || self.header_follows()?,
            b'1' => false,
            b'2'..=b'6' => self.header_follows()?,
            _ => false,
        };
        Ok(if empty { 0 } else { size })
    }

    /// Whether a header, or the end of the archive, is next.
    fn header_follows(&self) -> Result<bool> {
        Ok(self.header()?.is_none_or(|header| header.is_zero() || header.is_valid()))
    }

    fn old_map(&mut self, header: &Header) -> Result<sparse::Map> {
        ensure!(header.dialect() == Dialect::Gnu, "a sparse file of star: repack it with GNU tar or bsdtar");
        let mut map = sparse::old(header)?;
        let mut more = sparse::continues(header);
        while more {
            let block = self.header()?.context("truncated in the map of a sparse file")?;
            self.at += BLOCK;
            more = sparse::more(&block, &mut map.pieces)?;
        }
        Ok(map)
    }

    /// The block at the current position. `None` at the end of the file.
    fn header(&self) -> Result<Option<Header>> {
        if self.at >= self.len {
            return Ok(None);
        }
        if self.len - self.at < BLOCK {
            ensure!(self.at > 0, magic::not_a_tar(&self.file));
            bail!("truncated at byte {}", self.len);
        }
        let mut block = [0; 512];
        self.file.read_exact_at(&mut block, self.at).context("cannot read it")?;
        Ok(Some(Header(block)))
    }

    /// The data of a member that describes the next one.
    fn text(&mut self, header: &Header, bytes: &mut u64) -> Result<Vec<u8>> {
        let at = self.at;
        let size = header.size().and_then(|size| u64::try_from(size).ok()).context("invalid size")?;
        *bytes = bytes.saturating_add(size);
        ensure!(*bytes <= limits::RECORDS, "names or records are too long, at byte {at}");
        ensure!(at + size <= self.len, "truncated at byte {}, in names or records", self.len);
        let mut text = vec![0; usize::try_from(size)?];
        self.file.read_exact_at(&mut text, at).context("cannot read it")?;
        self.at = (at + size).next_multiple_of(BLOCK).min(self.len);
        Ok(text)
    }

    fn skip(&mut self, header: &Header) -> Result<()> {
        let size = header.size().and_then(|size| u64::try_from(size).ok()).context("invalid size")?;
        let end = self.at.checked_add(size).filter(|end| *end <= self.len);
        self.at = end.with_context(|| format!("truncated at byte {}", self.len))?.next_multiple_of(BLOCK);
        Ok(())
    }

    /// What follows the first block of zeros.
    fn end(&self) -> Result<Next> {
        let mut at = self.at;
        let mut buffer = vec![0; 256 << 10];
        while at < self.len {
            let got = self.file.read_at(&mut buffer, at).context("cannot read it")?;
            if got == 0 {
                break;
            }
            if let Some(other) = buffer[..got].iter().position(|&byte| byte != 0) {
                return Ok(Next::End(End::Followed(at + other as u64)));
            }
            at += got as u64;
        }
        Ok(Next::End(End::Marked))
    }
}

/// A name in the data of a member, which ends at its first NUL.
fn name(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    text.truncate(end);
    text
}
