//! The manifest of 3cpio: fields between tabs. A field that is empty, `-` or missing is what the file has.

use std::cell::OnceCell;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{major, minor};

use super::manifest::{Data, Entry, Lines, contents, field, mtime, permissions};
use crate::report::name::shown;

/// The entry of a line; `None` if the line is empty.
pub(super) fn entry(line: &[u8], lines: &mut Lines<'_>) -> Result<Vec<Entry>> {
    if line.is_empty() {
        return Ok(Vec::new());
    }
    let mut fields = line.split(|byte| *byte == b'\t').map(given);
    let location = fields.next().flatten();
    let name = fields.next().flatten().or(location).context("neither a location nor a name")?;
    let file = File { path: location.map(|location| lines.path(location)), metadata: OnceCell::new() };
    let kind = match fields.next().flatten() {
        Some(name) => kind(name)?,
        None => file.kind()?,
    };
    let mut value = |what: &str, radix: u32, of: &dyn Fn(&Metadata) -> u32| match fields.next().flatten() {
        Some(text) if radix == 8 => permissions(text),
        Some(text) => field(text, what, radix),
        None => Ok(of(file.metadata(what)?)),
    };
    let mode = value("mode", 8, &|metadata| metadata.mode() & 0o7777)?;
    let uid = value("user ID", 10, &Metadata::uid)?;
    let gid = value("group ID", 10, &Metadata::gid)?;
    let mtime = Some(value("time", 10, &mtime)?);
    let (mut rdev, mut data, mut inode) = ((0, 0), Data::None, None);
    match kind {
        0o020_000 | 0o060_000 => {
            rdev.0 = value("major number", 10, &|metadata| major(metadata.rdev()))?;
            rdev.1 = value("minor number", 10, &|metadata| minor(metadata.rdev()))?;
        }
        0o120_000 => data = Data::Bytes(target(fields.next().flatten(), &file)?),
        0o100_000 => {
            let wanted = fields.next().flatten().map(|text| field(text, "size", 10)).transpose()?;
            if wanted != Some(0) {
                let path = file.path.clone().context("a file without a location, and no size of 0")?;
                let known = file.metadata.get().filter(|known| !known.is_symlink()).cloned();
                let metadata =
                    known.map_or_else(|| fs::metadata(&path), Ok).with_context(|| cannot_read(&path))?;
                inode = Some((metadata.dev(), metadata.ino()));
                data = contents(path, &metadata, wanted)?;
            }
            // Empty files are no hard links of each other.
            inode = inode.filter(|_| !matches!(data, Data::None));
        }
        _ => {}
    }
    if let Some(Some(more)) = fields.find(Option::is_some) {
        lines.warn(&format!("ignored at its end: {}", shown(more)));
    }
    let nlink = if kind == 0o040_000 { 2 } else { 1 };
    let (line, name) = (lines.line, member(name));
    Ok(vec![Entry { line, name, mode: kind | mode, uid, gid, mtime, ino: 0, nlink, rdev, data, inode }])
}

/// The file of a line, which is looked at once if at all.
struct File {
    path: Option<PathBuf>,
    metadata: OnceCell<Metadata>,
}

impl File {
    fn metadata(&self, what: &str) -> Result<&Metadata> {
        let path = self.path.as_ref().with_context(|| format!("neither a {what} nor a location"))?;
        if let Some(metadata) = self.metadata.get() {
            return Ok(metadata);
        }
        let metadata = fs::symlink_metadata(path).with_context(|| cannot_read(path))?;
        Ok(self.metadata.get_or_init(|| metadata))
    }

    /// The type, as in a mode.
    fn kind(&self) -> Result<u32> {
        let kind = self.metadata("type")?.file_type();
        Ok(match kind {
            _ if kind.is_dir() => 0o040_000,
            _ if kind.is_symlink() => 0o120_000,
            _ if kind.is_block_device() => 0o060_000,
            _ if kind.is_char_device() => 0o020_000,
            _ if kind.is_fifo() => 0o010_000,
            _ if kind.is_socket() => 0o140_000,
            _ => 0o100_000,
        })
    }
}

/// A field that says something.
fn given(field: &[u8]) -> Option<&[u8]> {
    Some(field).filter(|field| !matches!(*field, b"" | b"-"))
}

fn kind(name: &[u8]) -> Result<u32> {
    Ok(match name {
        b"file" => 0o100_000,
        b"dir" => 0o040_000,
        b"block" => 0o060_000,
        b"char" => 0o020_000,
        b"link" => 0o120_000,
        b"fifo" => 0o010_000,
        b"sock" => 0o140_000,
        _ => bail!("unknown type {}: file, dir, block, char, link, fifo or sock", shown(name)),
    })
}

fn target(given: Option<&[u8]>, file: &File) -> Result<Vec<u8>> {
    if let Some(target) = given {
        return Ok(target.to_vec());
    }
    let path = file.path.as_ref().context("neither a target nor a location")?;
    let target = fs::read_link(path).with_context(|| cannot_read(path))?;
    ensure!(!target.as_os_str().is_empty(), "{}: an empty target", path.display());
    Ok(target.as_os_str().as_bytes().to_vec())
}

/// A name without what leads to the root. The root is called `.`.
fn member(name: &[u8]) -> Vec<u8> {
    let name = name.strip_prefix(b"./").or_else(|| name.strip_prefix(b"/")).unwrap_or(name);
    if name.is_empty() { b".".to_vec() } else { name.to_vec() }
}

fn cannot_read(path: &std::path::Path) -> String {
    format!("cannot read {}", path.display())
}
