//! The list of the kernel's `gen_init_cpio`: words between blanks, the first of which is the type.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail};

use super::manifest::{Data, Entry, Lines, contents, field, mtime, permissions, words};
use crate::report::name::shown;

/// The types.
pub(super) const TYPES: [&[u8]; 6] = [b"file", b"dir", b"nod", b"slink", b"pipe", b"sock"];

/// The entries of a line: several if a file has several names.
pub(super) fn entries(line: &[u8], lines: &mut Lines<'_>) -> Result<Vec<Entry>> {
    let words: Vec<&[u8]> = words(line).collect();
    let entry = |name: &[u8], kind: u32, mode: &[u8], uid: &[u8], gid: &[u8]| -> Result<Entry> {
        Ok(Entry {
            line: lines.line,
            name: member(name),
            mode: kind | permissions(mode)?,
            uid: field(uid, "user ID", 10)?,
            gid: field(gid, "group ID", 10)?,
            mtime: None,
            ino: 0,
            // What gen_init_cpio writes; the kernel looks at that of files only.
            nlink: if matches!(kind, 0o040_000 | 0o010_000 | 0o140_000) { 2 } else { 1 },
            rdev: (0, 0),
            data: Data::None,
            inode: None,
        })
    };
    let (entry, more) = match *words {
        [] => return Ok(Vec::new()),
        [b"file", name, location, mode, uid, gid, ref names @ ..] => {
            let first = entry(name, 0o100_000, mode, uid, gid)?;
            return file(first, location, names, lines);
        }
        [b"dir", name, mode, uid, gid, ref more @ ..] => (entry(name, 0o040_000, mode, uid, gid)?, more),
        [b"pipe", name, mode, uid, gid, ref more @ ..] => (entry(name, 0o010_000, mode, uid, gid)?, more),
        [b"sock", name, mode, uid, gid, ref more @ ..] => (entry(name, 0o140_000, mode, uid, gid)?, more),
        [b"nod", name, mode, uid, gid, kind, major, minor, ref more @ ..] => {
            let kind = match kind {
                b"b" => 0o060_000,
                b"c" => 0o020_000,
                _ => bail!("unknown type of device {}: b or c", shown(kind)),
            };
            let rdev = (field(major, "major number", 10)?, field(minor, "minor number", 10)?);
            (Entry { rdev, ..entry(name, kind, mode, uid, gid)? }, more)
        }
        [b"slink", name, target, mode, uid, gid, ref more @ ..] => {
            // The NUL is part of the data.
            let data = Data::Bytes([target, b"\0"].concat());
            (Entry { data, ..entry(name, 0o120_000, mode, uid, gid)? }, more)
        }
        [kind, ..] if TYPES.contains(&kind) => bail!("too few words: {}", usage(kind)),
        [kind, ..] => bail!("unknown type {}: file, dir, nod, slink, pipe or sock", shown(kind)),
    };
    if !more.is_empty() {
        lines.warn(&format!("ignored at its end: {}", shown(&more.join(&b' '))));
    }
    Ok(vec![entry])
}

/// The names of a file.
fn file(first: Entry, location: &[u8], names: &[&[u8]], lines: &Lines<'_>) -> Result<Vec<Entry>> {
    let path = lines.path(&expanded(location));
    let metadata = fs::metadata(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let inode = if names.is_empty() { None } else { Some((u64::MAX, lines.line as u64)) };
    let first =
        Entry { mtime: Some(mtime(&metadata)), data: contents(path, &metadata, None)?, inode, ..first };
    let others = names.iter().map(|name| Entry { name: member(name), ..first.clone() });
    let others: Vec<Entry> = others.collect();
    Ok([vec![first], others].concat())
}

/// A name without the slash in front. The root is called `.`.
fn member(name: &[u8]) -> Vec<u8> {
    let name = name.strip_prefix(b"/").unwrap_or(name);
    if name.is_empty() { b".".to_vec() } else { name.to_vec() }
}

/// A location with its variables, as `${NAME}`. What is not set is empty.
fn expanded(location: &[u8]) -> Vec<u8> {
    let mut text = location.to_vec();
    let mut from = 0;
    while let Some(start) = text[from..].windows(2).position(|pair| pair == b"${") {
        let start = from + start;
        let Some(end) = text[start..].iter().position(|byte| *byte == b'}') else { break };
        let name = OsStr::from_bytes(&text[start + 2..start + end]);
        let value = if name.is_empty() { None } else { env::var_os(name) };
        let value = value.unwrap_or_default();
        text.splice(start..=start + end, value.as_bytes().iter().copied());
        // A value is not expanded again: it could contain itself.
        from = start + value.len();
    }
    text
}

fn usage(kind: &[u8]) -> &'static str {
    match kind {
        b"file" => "file NAME LOCATION MODE UID GID [HARD LINK...]",
        b"nod" => "nod NAME MODE UID GID TYPE MAJOR MINOR",
        b"slink" => "slink NAME TARGET MODE UID GID",
        b"pipe" => "pipe NAME MODE UID GID",
        b"sock" => "sock NAME MODE UID GID",
        _ => "dir NAME MODE UID GID",
    }
}
