//! A tar archive as a source, as GNU tar, bsdtar, star, Solaris, `docker export` or `podman export` write it.
//!
//! The archive stays in its own file, or is decompressed into an unnamed one. A [`Layer`] gets the
//! positions of its members; contents are not copied.

mod entries;
mod header;
mod member;
mod range;
mod sparse;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};

use self::entries::{End, Entries, Next};
pub use self::member::Member;
pub use self::range::Range;
use super::layer::Layer;
use super::limits;
use super::magic;
use crate::codec::any;
use crate::report::name::shown;
use crate::tree::path::normal;

/// Maximum number of symbolic links on the way to a file of an archive.
const LINKS: usize = 4;

/// A tar archive in a file that can be read at any offset.
#[derive(Debug, Clone)]
pub struct Tarball {
    file: Arc<File>,
    name: String,
    /// Whether a digest has shown that it is complete.
    verified: bool,
    /// Whether bytes follow the compressed stream.
    junk: bool,
}

impl Tarball {
    /// Opens an archive. An uncompressed one is used in place; any other goes to an unnamed file in `scratch`.
    pub fn open(file: Arc<File>, name: &str, scratch: &Path, weight: &mut limits::Weight) -> Result<Tarball> {
        let mut head = [0; any::HEAD];
        let got = file.read_at(&mut head, 0).with_context(|| format!("cannot read {name}"))?;
        if any::detect(&head[..got]).is_some() {
            return Tarball::spool(Range::new(file, 0, u64::MAX), name, scratch, weight);
        }
        Ok(Tarball { file, name: name.to_string(), verified: false, junk: false })
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
        let mut packed_input = BufReader::with_capacity(256 << 10, counted);
        let mut input =
            any::decompressed(&mut packed_input).with_context(|| format!("cannot read {name}"))?;
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
        drop(input);
        let junk = follows(&mut packed_input).with_context(|| format!("cannot read {name}"))?;
        Ok(Tarball { file: Arc::new(spool), name: name.to_string(), verified: false, junk })
    }

    /// The same archive, which a digest has shown to be complete: it need not end as others must.
    #[must_use]
    pub fn verified(self) -> Tarball {
        Tarball { verified: true, ..self }
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
            self.entries(&mut |next| {
                if let Next::Member(member) = next
                    && normal(&member.name) == wanted
                {
                    let regular = member.kind() == b'0' && member.sparse.is_none();
                    found = regular.then_some((member.position, member.stored));
                    link = Some(member.target);
                }
                Ok(())
            })?;
            match link {
                Some(target) if found.is_none() && !target.is_empty() => wanted = beside(&wanted, &target),
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

    /// Applies every member to the tree. Returns how many there are.
    pub fn apply(&self, layer: &mut Layer<'_>) -> Result<u64> {
        let mut members = 0;
        if self.junk {
            layer.notes.once(format!("{}: bytes behind the compressed data are ignored", self.name));
        }
        self.entries(&mut |next| {
            match next {
                Next::Member(member) => {
                    members += 1;
                    let at = member.position;
                    layer
                        .member(*member, &self.file)
                        .map_err(|(name, error)| error.context(format!("\"{}\", at byte {at}", shown(&name))))?;
                }
                Next::Skipped(name, why) => layer.notes.add(&format!("left out: {why}"), &name),
                Next::End(End::Followed(at)) => layer.notes.once(format!(
                    "{}: the archive ends before byte {at}, and what follows is ignored, as by tar without -i",
                    self.name
                )),
                Next::End(End::Marked | End::Missing) => {}
            }
            Ok(())
        })?;
        Ok(members)
    }

    /// Calls `visit` with each member and with the end. An error names the archive and the offset.
    fn entries(&self, visit: &mut dyn FnMut(Next) -> Result<()>) -> Result<()> {
        let name = || self.name.clone();
        let len = self.file.metadata().with_context(|| format!("cannot stat {}", self.name))?.len();
        ensure!(len > 0, "{} is empty", self.name);
        let mut entries = Entries::new(self.file.clone(), len);
        loop {
            let next = entries.next().with_context(name)?;
            let end = if let Next::End(end) = &next { Some(*end) } else { None };
            match end {
                Some(End::Missing) if !self.verified => bail!(
                    "{}: truncated at byte {len}: the blocks of zeros that end an archive are missing. If it is \
                     whole, append them: head -c 1024 /dev/zero >> FILE",
                    self.name
                ),
                // A file system or a disk also begins with zeros.
                Some(End::Followed(_)) if entries.at() == 0 => {
                    bail!("{}: {}", self.name, magic::not_a_tar(&self.file))
                }
                _ => visit(next).with_context(name)?,
            }
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

/// Whether anything but zeros is left in the input.
fn follows(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = match input.fill_buf() {
            Ok([]) => return Ok(false),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if bytes.iter().any(|&byte| byte != 0) {
            return Ok(true);
        }
        let count = bytes.len();
        input.consume(count);
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
