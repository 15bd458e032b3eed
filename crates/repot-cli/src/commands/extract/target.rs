//! Writing entries below a directory. Every path is resolved as if that were the root, so no name and no
//! symbolic link leads out of it.
//!
//! Follows the kernel (`init/initramfs.c`): a later member overwrites a file in place, replaces anything of
//! another type, and keeps a directory with entries.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, linkat, mkdirat, mknodat, openat, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::attributes::{Below, id, times};
use super::inside;
use super::writer::Writer;
use super::xattr::xattr;
use crate::source::notes::Notes;
use crate::tree::Attributes;
use crate::tree::path::{components, split};

const LOST: &str = "it comes before its directory, so the kernel loses it";
const KEPT: &str = "a directory with entries has its name, so the kernel keeps that";
/// Creates a file.
const NEW: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Opens one to write it anew.
const AGAIN: OFlags = OFlags::WRONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NODE: &str = "a device node, which only root can create: left out";

/// A directory that entries are written into.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) root: OwnedFd,
    below: Arc<Below>,
    writer: Writer,
    /// Whether nothing in it is older than this run. Then files are overwritten in place, as by the kernel.
    fresh: bool,
    /// The last directory that was opened.
    opened: Option<(Vec<u8>, OwnedFd)>,
    /// The attributes of directories, which are set at the end.
    pub(super) directories: HashMap<Vec<u8>, Attributes>,
    /// Those of them that no member was there for when they were needed.
    guessed: HashSet<Vec<u8>>,
    /// The attribute manifests of the image with their names, in order.
    pub(super) manifests: Vec<(Vec<u8>, Vec<u8>)>,
    /// Entries written.
    pub(super) entries: u64,
    /// Bytes of files.
    pub(super) bytes: u64,
    /// What could not be done.
    pub(super) notes: Notes,
}

impl Target {
    /// Writes into the directory `root` of a yard, which is to have this path.
    pub(super) fn new(root: OwnedFd, path: String, fresh: bool) -> Result<Target> {
        let below = Arc::new(Below::new(&root, path, fresh).context("cannot stat the target directory")?);
        Ok(Target {
            root,
            writer: Writer::new(below.clone()),
            below,
            fresh,
            opened: None,
            directories: HashMap::new(),
            guessed: HashSet::new(),
            manifests: Vec::new(),
            entries: 0,
            bytes: 0,
            notes: Notes::default(),
        })
    }

    /// A directory. Its attributes are set by [`Target::finish`].
    pub(super) fn directory(&mut self, path: &[u8], attributes: &Attributes) -> Result<()> {
        if !matches!(path, b"" | b".") {
            let made = self.at(path, &mut |parent, name| mkdirat(parent, name, Mode::RWXU));
            let made = match made {
                Err(Errno::EXIST) => self.existing_directory(path),
                made => made,
            };
            if !self.check(made, "mkdirat", path)? {
                return Ok(());
            }
        }
        self.entries += 1;
        let before = self.directories.insert(path.to_vec(), attributes.clone());
        // The kernel sets the times of directories at the end, those of the latest member first.
        if let Some(before) = before.filter(|_| !self.guessed.contains(path))
            && let Some(now) = self.directories.get_mut(path)
        {
            (now.mtime, now.nanoseconds) = (before.mtime, before.nanoseconds);
        }
        Ok(())
    }

    fn existing_directory(&mut self, path: &[u8]) -> rustix::io::Result<()> {
        let kind = self.at(path, &mut |parent, name| statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))?;
        if FileType::from_raw_mode(kind.st_mode) == FileType::Directory {
            return Ok(());
        }
        self.clear(path)?;
        self.at(path, &mut |parent, name| mkdirat(parent, name, Mode::RWXU))
    }

    /// A regular file with these contents.
    pub(super) fn file(&mut self, path: &[u8], attributes: &Attributes, data: &mut dyn Read) -> Result<()> {
        let mode = self.below.mode(attributes);
        let create = |parent: BorrowedFd<'_>, name: &[u8]| openat(parent, name, NEW, mode);
        let mut opened = self.at(path, &mut |parent, name| Ok((create(parent, name)?, true)));
        if matches!(opened, Err(Errno::EXIST)) {
            opened = self.existing_file(path, &create);
        }
        let Some(opened) = self.checked(opened, "openat", path)? else { return Ok(()) };
        self.bytes += self.writer.file(opened, path, attributes, data)?;
        self.entries += 1;
        Ok(())
    }

    /// Opens what has the name of a file. Returns whether it is new.
    fn existing_file(
        &mut self,
        path: &[u8],
        create: &dyn Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<OwnedFd>,
    ) -> rustix::io::Result<(OwnedFd, bool)> {
        let kind = self.at(path, &mut |parent, name| statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))?;
        if self.fresh && FileType::from_raw_mode(kind.st_mode) == FileType::RegularFile {
            let again = self.at(path, &mut |parent, name| openat(parent, name, AGAIN, Mode::empty()));
            return Ok((again?, false));
        }
        self.clear(path)?;
        self.at(path, &mut |parent, name| Ok((create(parent, name)?, true)))
    }

    /// A symbolic link.
    pub(super) fn symlink(&mut self, path: &[u8], target: &[u8], attributes: &Attributes) -> Result<()> {
        let made = self.anew(path, &mut |parent, name| symlinkat(target, parent, name));
        self.named("symlinkat", made, path, attributes)
    }

    /// A device node, pipe or socket.
    pub(super) fn node(
        &mut self,
        path: &[u8],
        kind: u32,
        device: (u32, u32),
        attributes: &Attributes,
    ) -> Result<()> {
        let (kind, mode) =
            (FileType::from_raw_mode(kind), Mode::from_raw_mode(attributes.permissions & 0o777));
        let device = rustix::fs::makedev(device.0, device.1);
        let made = self.anew(path, &mut |parent, name| mknodat(parent, name, kind, mode, device));
        if made == Err(Errno::PERM) {
            self.notes.add(NODE, path);
            return Ok(());
        }
        self.named("mknodat", made, path, attributes)
    }

    /// One more name of an entry. Returns whether there was one.
    pub(super) fn link(&mut self, path: &[u8], first: &[u8]) -> Result<bool> {
        let (directory, last) = split(first);
        let made = match self.open(directory) {
            Ok(from) => {
                self.anew(path, &mut |parent, name| linkat(&from, last, parent, name, AtFlags::empty()))
            }
            Err(error) => Err(error),
        };
        if matches!(made, Err(Errno::NOENT | Errno::PERM)) {
            return Ok(false);
        }
        let linked = self.check(made, "linkat", path)?;
        self.entries += u64::from(linked);
        Ok(true)
    }

    /// Gives an existing file other contents, for a hard link that carries them.
    pub(super) fn fill(&mut self, path: &[u8], attributes: &Attributes, data: &mut dyn Read) -> Result<()> {
        let opened = self.at(path, &mut |parent, name| openat(parent, name, AGAIN, Mode::empty()));
        let Some(fd) = self.checked(opened, "openat", path)? else { return Ok(()) };
        self.bytes += self.writer.file((fd, false), path, attributes, data)?;
        Ok(())
    }

    /// Waits until the contents of all files are written.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.writer.finish(&mut self.notes)
    }

    /// Creates what replaces anything that has its name.
    fn anew(
        &mut self,
        path: &[u8],
        make: &mut dyn FnMut(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        match self.at(path, make) {
            Err(Errno::EXIST) => {
                self.clear(path)?;
                self.at(path, make)
            }
            made => made,
        }
    }

    /// Removes what has a name, unless that is a directory with entries.
    fn clear(&mut self, path: &[u8]) -> rustix::io::Result<()> {
        let removed = self.at(path, &mut |parent, name| match unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => unlinkat(parent, name, AtFlags::REMOVEDIR),
            removed => removed,
        });
        self.opened = None;
        removed
    }

    /// Calls with the directory of a path and the name in it. Missing directories are created.
    fn at<T>(
        &mut self,
        path: &[u8],
        call: &mut dyn FnMut(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let (directory, name) = split(path);
        if matches!(name, b"" | b"." | b"..") {
            return Err(Errno::INVAL);
        }
        if self.opened.as_ref().is_none_or(|(opened, _)| opened != directory) {
            let fd = match self.open(directory) {
                Err(Errno::NOENT) => {
                    self.notes.add(LOST, path);
                    self.parents(directory)?
                }
                opened => opened?,
            };
            self.opened = Some((directory.to_vec(), fd));
        }
        match &self.opened {
            Some((_, fd)) => call(fd.as_fd(), name),
            None => Err(Errno::NOENT),
        }
    }

    /// Opens a directory, through symbolic links as in a booted system.
    fn open(&self, directory: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if directory.is_empty() { &b"."[..] } else { directory };
        inside::directory(self.root.as_fd(), path)
    }

    fn parents(&mut self, directory: &[u8]) -> rustix::io::Result<OwnedFd> {
        let mut path: Vec<u8> = Vec::new();
        let mut fd = self.open(b"")?;
        for name in components(directory) {
            path.extend_from_slice(if path.is_empty() { b"" } else { b"/" });
            path.extend_from_slice(name);
            fd = match self.open(&path) {
                Err(Errno::NOENT) => {
                    mkdirat(&fd, name, Mode::RWXU)?;
                    let attributes = Attributes { permissions: 0o755, ..Attributes::default() };
                    if self.directories.insert(path.clone(), attributes).is_none() {
                        self.guessed.insert(path.clone());
                    }
                    self.open(&path)?
                }
                opened => opened?,
            };
        }
        Ok(fd)
    }

    /// Whether a call has succeeded. What the archive is to blame for is a note, the rest is an error.
    fn check(&mut self, done: rustix::io::Result<()>, call: &str, path: &[u8]) -> Result<bool> {
        Ok(self.checked(done, call, path)?.is_some())
    }

    fn checked<T>(&mut self, done: rustix::io::Result<T>, call: &str, path: &[u8]) -> Result<Option<T>> {
        let why = match done {
            Ok(done) => return Ok(Some(done)),
            Err(Errno::NOTEMPTY | Errno::EXIST) => KEPT,
            Err(Errno::NOTDIR) => "its directory is something else, so the kernel loses it",
            Err(Errno::LOOP) => "its directory is a loop of symbolic links, so the kernel loses it",
            Err(Errno::INVAL) => "its name is none that an entry can have",
            Err(Errno::NAMETOOLONG) => "a part of its name is longer than this file system allows",
            Err(errno) => return Err(self.below.unwritable(call, path, &errno).into()),
        };
        self.notes.add(why, path);
        Ok(None)
    }

    /// Sets owner and times of what has no descriptor.
    fn named(
        &mut self,
        call: &str,
        made: rustix::io::Result<()>,
        path: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        if !self.check(made, call, path)? {
            return Ok(());
        }
        self.entries += 1;
        let Attributes { uid, gid, .. } = *attributes;
        let times = times(attributes);
        let mut owner = Ok(());
        let foreign = !self.below.is_own(attributes);
        let timed = self.at(path, &mut |parent, name| {
            if foreign {
                owner = chownat(
                    parent,
                    name,
                    id(uid, Uid::from_raw),
                    id(gid, Gid::from_raw),
                    AtFlags::SYMLINK_NOFOLLOW,
                );
            }
            utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        });
        if owner.is_err() {
            Below::note_owner(&mut self.notes, path);
        }
        for (name, value) in &attributes.xattrs {
            let fd = self.at(path, &mut |parent, name| {
                openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            });
            if let Some(fd) = self.checked(fd, "openat", path)? {
                xattr(&mut self.notes, fd.as_fd(), path, name, value);
            }
        }
        timed.map_err(|errno| self.below.unwritable("utimensat", path, &errno).into())
    }

    /// Sets the attributes of the directories, those of the deepest first. The root is `.`.
    pub(super) fn finish(&mut self) -> Result<()> {
        let mut all: Vec<_> = std::mem::take(&mut self.directories).into_iter().collect();
        all.sort_by(|(one, _), (other, _)| other.cmp(one));
        // "." sorts before names that begin with a letter, and must be the last.
        all.sort_by_key(|(path, _)| matches!(&path[..], b"" | b"."));
        for (path, attributes) in all {
            let name: &[u8] = if path.is_empty() { b"." } else { &path };
            match inside::unlinked(self.root.as_fd(), name) {
                // Something else has its name by now.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                opened => {
                    let fd = opened.map_err(|errno| self.below.unwritable("open", &path, &errno))?;
                    self.below.set(fd.as_fd(), &path, &attributes, false, &mut self.notes)?;
                }
            }
        }
        Ok(())
    }
}
