//! The lower bound for every mover: it creates the same files from memory and unlinks the originals.
//!
//! The tree is read before the clock starts. Of the attributes, only the mode is set.

use crate::{Done, say, stamp};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat, symlinkat, unlinkat};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A directory by its path from the top, and its entries except directories.
struct Directory {
    path: CString,
    mode: Mode,
    entries: Vec<(CString, Entry)>,
}

enum Entry {
    File {
        mode: Mode,
        content: Vec<u8>,
    },
    Symlink(CString),
    Node {
        mode: u32,
        device: u64,
    },
    /// A hard link to an earlier path.
    Link(CString),
}

pub(crate) fn relocate(old: &Path, new: &Path, threads: &str) -> Done {
    let mut directories = Vec::new();
    read(old, old, &mut directories, &mut std::collections::HashMap::new())?;
    rustix::process::umask(Mode::empty());
    let top = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (old, new) = (openat(CWD, old, top, Mode::empty())?, openat(CWD, new, top, Mode::empty())?);
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        while let Some(directory) = directories.get(next.fetch_add(1, Ordering::Relaxed)) {
            let old = openat(&old, &directory.path, top, Mode::empty())?;
            let new = openat(&new, &directory.path, top, Mode::empty())?;
            for (name, entry) in &directory.entries {
                if !matches!(entry, Entry::Link(_)) {
                    entry.make(&new, name)?;
                    unlinkat(&old, name, AtFlags::empty())?;
                }
            }
        }
        Ok(())
    };
    say(&format!("start {}", stamp()))?;
    for directory in &directories[1..] {
        mkdirat(&new, &directory.path, directory.mode)?;
    }
    let threads: usize = threads.parse()?;
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mine = work();
        others
            .into_iter()
            .map(|other| other.join().unwrap_or(Ok(())))
            .chain([mine])
            .collect::<io::Result<()>>()
    })?;
    for directory in directories.iter().rev() {
        let (old_dir, new_dir) = (
            openat(&old, &directory.path, top, Mode::empty())?,
            openat(&new, &directory.path, top, Mode::empty())?,
        );
        for (name, entry) in &directory.entries {
            if let Entry::Link(first) = entry {
                rustix::fs::linkat(&new, first, &new_dir, name, AtFlags::empty())?;
                unlinkat(&old_dir, name, AtFlags::empty())?;
            }
        }
        if directory.path.as_bytes() != b"." {
            unlinkat(&old, &directory.path, AtFlags::REMOVEDIR)?;
        }
    }
    say(&format!("end {}", stamp()))?;
    // Releasing the contents takes long and is not part of the measurement.
    std::process::exit(0)
}

impl Entry {
    fn make(&self, dir: &rustix::fd::OwnedFd, name: &CString) -> io::Result<()> {
        match self {
            Entry::File { mode, content } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(dir, name, flags, *mode)?;
                let mut rest = content.as_slice();
                while !rest.is_empty() {
                    rest = &rest[rustix::io::write(&file, rest)?..];
                }
            }
            Entry::Symlink(target) => symlinkat(target, dir, name)?,
            Entry::Node { mode, device } => {
                mknodat(dir, name, FileType::from_raw_mode(*mode), Mode::from_raw_mode(*mode), *device)?;
            }
            Entry::Link(_) => {}
        }
        Ok(())
    }
}

type Links = std::collections::HashMap<u64, CString>;

fn read(top: &Path, path: &Path, directories: &mut Vec<Directory>, links: &mut Links) -> io::Result<()> {
    let mode = Mode::from_raw_mode(path.symlink_metadata()?.mode() & 0o7777);
    let mut here = Directory { path: relative(top, path)?, mode, entries: Vec::new() };
    let mut below = Vec::new();
    for item in path.read_dir()? {
        let item = item?;
        let (path, meta) = (item.path(), item.metadata()?);
        if meta.is_dir() {
            below.push(path);
            continue;
        }
        let mode = Mode::from_raw_mode(meta.mode() & 0o7777);
        let first = if meta.nlink() > 1 { links.get(&meta.ino()).cloned() } else { None };
        let entry = if let Some(first) = first {
            Entry::Link(first)
        } else if meta.is_symlink() {
            Entry::Symlink(text(path.read_link()?.into_os_string().into_vec())?)
        } else if meta.is_file() {
            Entry::File { mode, content: std::fs::read(&path)? }
        } else {
            Entry::Node { mode: meta.mode(), device: meta.rdev() }
        };
        if meta.nlink() > 1 {
            links.entry(meta.ino()).or_insert(relative(top, &path)?);
        }
        here.entries.push((text(item.file_name().into_vec())?, entry));
    }
    directories.push(here);
    for path in below {
        read(top, &path, directories, links)?;
    }
    Ok(())
}

fn relative(top: &Path, path: &Path) -> io::Result<CString> {
    let name = path.strip_prefix(top).unwrap_or(path).as_os_str().as_bytes();
    text(if name.is_empty() { b"." } else { name })
}

fn text(bytes: impl Into<Vec<u8>>) -> io::Result<CString> {
    Ok(CString::new(bytes)?)
}
