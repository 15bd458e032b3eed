//! A tar archive as a source, as GNU tar, bsdtar, `docker export` or `podman export` write it.
//!
//! The archive stays in its own file, or is decompressed into an unnamed one. A [`Layer`] gets the
//! positions of its members; contents are not copied.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tar::{Archive, Entry, EntryType};

use super::layer::Layer;
use super::limits;
use super::member::{Member, Range, plain};
use super::pax::{self, Places, Records};
use crate::codec::{self, Compression};
use crate::report::name::shown;

/// Maximum number of symbolic links on the way to a file of an archive.
const LINKS: usize = 4;

/// A tar archive in a file that can be read at any offset.
#[derive(Debug, Clone)]
pub struct Tarball {
    file: Arc<File>,
    name: String,
}

impl Tarball {
    /// Opens an archive. An uncompressed one in a regular file is used in place; any other goes to an unnamed
    /// file in `scratch`.
    pub fn open(mut input: File, name: &str, scratch: &Path, weight: &mut limits::Weight) -> Result<Tarball> {
        let mut magic = [0; 2];
        let regular = input.metadata().is_ok_and(|metadata| metadata.is_file());
        if regular {
            let got = input.read_at(&mut magic, 0).with_context(|| format!("cannot read {name}"))?;
            if got == 2 && Compression::detect(&magic).is_err() {
                input.seek(SeekFrom::Start(0)).with_context(|| format!("cannot read {name}"))?;
                return Ok(Tarball { file: Arc::new(input), name: name.to_string() });
            }
        }
        Tarball::spool(input, name, scratch, weight)
    }

    /// Copies a stream to an unnamed file, and decompresses it if necessary.
    pub fn spool(
        input: impl Read,
        name: &str,
        scratch: &Path,
        weight: &mut limits::Weight,
    ) -> Result<Tarball> {
        let mut spool = tempfile::tempfile_in(scratch)
            .with_context(|| format!("cannot create a temporary file in {}", scratch.display()))?;
        let packed = Cell::new(0);
        let counted = Counted { input, bytes: &packed };
        let mut input = codec::decompressed(BufReader::with_capacity(256 << 10, counted))
            .with_context(|| format!("cannot read {name}"))?;
        let mut buffer = vec![0; 256 << 10];
        let mut offset = 0u64;
        loop {
            let got = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(
                        anyhow!(error).context(format!("{name}: corrupt after {offset} unpacked bytes"))
                    );
                }
            };
            weight.unpack(got).with_context(|| name.to_string())?;
            limits::proportion(offset + got, packed.get()).with_context(|| name.to_string())?;
            spool
                .write_all(&buffer[..usize::try_from(got)?])
                .with_context(|| format!("cannot write a temporary file in {}", scratch.display()))?;
            offset += got;
        }
        spool.seek(SeekFrom::Start(0)).context("cannot read a temporary file")?;
        Ok(Tarball { file: Arc::new(spool), name: name.to_string() })
    }

    /// The archive's name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Offset and length of the contents of a member. The last member of this name counts.
    ///
    /// `docker save` writes a repeated layer as a symbolic link to the first.
    pub fn member(&self, wanted: &str) -> Result<Option<(u64, u64)>> {
        let mut wanted = wanted.as_bytes().to_vec();
        for _ in 0..LINKS {
            let mut found = None;
            let mut link = None;
            self.entries(|member| {
                if plain(&member.path) == wanted {
                    let regular = member.entry.header().entry_type().is_file();
                    found = regular.then(|| (member.position, member.entry.size()));
                    link.clone_from(&member.target);
                }
                Ok(())
            })?;
            match link {
                Some(target) if found.is_none() => wanted = beside(&wanted, &target),
                _ => return Ok(found),
            }
        }
        Ok(None)
    }

    /// A reader for part of the archive.
    #[must_use]
    pub fn range(&self, offset: u64, len: u64) -> Range {
        Range::new(self.file.clone(), offset, len)
    }

    /// Applies every member to the tree.
    pub fn apply(&self, layer: &mut Layer<'_>) -> Result<()> {
        self.entries(|member| layer.member(member, &self.file))
    }

    /// Calls `visit` with each entry. An error names the offset in the archive.
    fn entries(&self, mut visit: impl FnMut(&mut Member<'_, '_>) -> Result<()>) -> Result<()> {
        let len = self.file.metadata().with_context(|| format!("cannot stat {}", self.name))?.len();
        ensure!(len > 0, "{} is empty", self.name);
        let mut magic = [0; 5];
        let got = self.file.read_at(&mut magic, 0).with_context(|| format!("cannot read {}", self.name))?;
        ensure!(
            &magic[..got] != b"07070",
            "{} is already an initramfs (a cpio archive): add repot to it with `repot append`",
            self.name
        );
        let places = Places::find(self.range(0, len)).with_context(|| self.name.clone())?;
        let range = self.range(0, len);
        let budget = range.budget();
        let mut archive = Archive::new(range);
        // The tar crate reads long names and PAX records into memory between two entries. This bounds them.
        budget.set(limits::RECORDS);
        let mut end = 0;
        for entry in archive.entries_with_seek().with_context(|| format!("cannot read {}", self.name))? {
            let mut entry = match entry {
                Ok(entry) => entry,
                // A wrong checksum in the first header means that this is not a tar archive at all.
                Err(error) if end == 0 && error.to_string().contains("cksum") => bail!(
                    "{}: corrupt at byte 0, or not a tar archive: pack takes a directory, a tar archive or a container image",
                    self.name
                ),
                Err(error) => bail!("{}: corrupt at byte {end}: {}", self.name, brief(&error)),
            };
            let position = entry.raw_file_position();
            let records = self
                .records(&places, &mut entry)
                .with_context(|| format!("{}: before byte {position}", self.name))?;
            let mut member = Member::new(&mut entry, records, position);
            let size = member
                .entry
                .header()
                .entry_size()
                .with_context(|| format!("{}: corrupt at byte {position}", self.name))?;
            end = position.saturating_add(member.entry.size().max(size));
            ensure!(position <= len, "{}: truncated at byte {len}", self.name);
            if member.entry.header().entry_type() != EntryType::GNUSparse {
                ensure!(
                    end <= len,
                    "{}: truncated at byte {len}, in the data of \"{}\"",
                    self.name,
                    shown(&member.path)
                );
            }
            budget.set(u64::MAX);
            visit(&mut member)
                .with_context(|| format!("{}: \"{}\", at byte {position}", self.name, shown(&member.path)))?;
            budget.set(limits::RECORDS);
        }
        Ok(())
    }

    fn records(&self, places: &Places, entry: &mut Entry<'_, Range>) -> Result<Records> {
        let Some((data, len)) = places.of(entry.raw_header_position()) else {
            // The tar crate has found records that Places::find() has not: after a large map of holes.
            let lost = entry.header().entry_type() != EntryType::XGlobalHeader
                && matches!(entry.pax_extensions(), Ok(Some(_)));
            ensure!(!lost, "extended records after a map of holes are not supported");
            return Ok(Records::new());
        };
        ensure!(len <= limits::RECORDS, "names or records longer than {} bytes", limits::RECORDS);
        let mut bytes = vec![0; usize::try_from(len)?];
        self.file.read_exact_at(&mut bytes, data)?;
        pax::parse(&bytes)
    }
}

/// The target of a link at `path`, relative to the root of the archive.
fn beside(path: &[u8], target: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    names.pop();
    for name in target.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            _ => names.push(name),
        }
    }
    names.join(&b'/')
}

/// The message of the tar crate, without the bytes that it quotes.
fn brief(error: &io::Error) -> String {
    let text = error.to_string();
    let what = text.split(" when ").next().unwrap_or_default();
    shown(what.split(": ").next().unwrap_or_default().as_bytes())
}

/// Counts the bytes that are read through it.
struct Counted<'a, R> {
    input: R,
    bytes: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.bytes.set(self.bytes.get() + got as u64);
        Ok(got)
    }
}
