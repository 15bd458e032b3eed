//! A tree as a sorted list of entries: what a mover may not change.
//!
//! The content of a file is told by SHA-256 over its length and its pages that are not all zero, each as its
//! number and a sum of 64 bits: a hole and a page of zeros are the same content, a sparse file of a terabyte costs
//! nothing, and 200 MiB are read in seconds by an emulated processor, which SHA-256 over each byte is not. Nothing is entered that is mounted in the tree when the caller's
//! descriptor is a non-recursive clone of the mount.

use crate::account::{Entry, Kind};
use crate::escape::{escape, hex};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Statx, StatxFlags, Timespec, Timestamps, fstatfs,
    ioctl_getflags, openat, readlinkat, seek, statx, utimensat,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const PAGE: usize = 4096;
/// A multiple of the page; large enough that system calls do not count.
const WINDOW: usize = 1 << 20;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// What to look at besides what `statx` tells.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Extended attributes and inode flags. Changes the working directory: for a process of one thread.
    pub attributes: bool,
    /// Put back the access times of symlinks, which looking changes.
    pub restore: bool,
}

/// The entries of the tree below `root`, the root itself first.
pub fn snapshot(root: BorrowedFd<'_>, depth: Depth) -> io::Result<Vec<Entry>> {
    let ramfs = u64::try_from(fstatfs(root)?.f_type).is_ok_and(|magic| magic == RAMFS_MAGIC);
    let mut walk = Walk { depth, ramfs, entries: Vec::new(), links: HashMap::new() };
    let directory = openat(
        root,
        c".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = statx(&directory, c"", AtFlags::EMPTY_PATH, fields())?;
    let at = walk.push("", &stat);
    walk.directory(directory, "", at)?;
    Ok(walk.entries)
}

/// SHA-256 over the list.
pub fn digest(entries: &[Entry]) -> String {
    let mut sum = Sha256::new();
    for entry in entries {
        sum.update(serde_json::to_vec(entry).unwrap_or_default());
    }
    hex(&sum.finalize())
}

fn fields() -> StatxFlags {
    StatxFlags::BASIC_STATS
}

struct Walk {
    depth: Depth,
    ramfs: bool,
    entries: Vec<Entry>,
    /// First path of every inode that has several.
    links: HashMap<u64, String>,
}

impl Walk {
    /// Adds what `statx` tells and gives the place of the entry.
    fn push(&mut self, path: &str, stat: &Statx) -> usize {
        let kind = kind(stat);
        let several = stat.stx_nlink > 1 && kind != Kind::Directory;
        let link_to = if several { self.links.get(&stat.stx_ino).cloned() } else { None };
        if several && link_to.is_none() {
            self.links.insert(stat.stx_ino, path.to_owned());
        }
        let device = matches!(kind, Kind::Character | Kind::Block);
        self.entries.push(Entry {
            path: path.to_owned(),
            kind,
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            nlink: stat.stx_nlink,
            link_to,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            atime: (stat.stx_atime.tv_sec, stat.stx_atime.tv_nsec),
            target: None,
            device: device.then_some((stat.stx_rdev_major, stat.stx_rdev_minor)),
            xattrs: BTreeMap::new(),
            flags: 0,
            content: None,
        });
        self.entries.len() - 1
    }

    /// The children of an open directory, sorted by their bytes, and what is theirs.
    fn directory(&mut self, directory: OwnedFd, path: &str, at: usize) -> io::Result<()> {
        if self.depth.attributes {
            self.entries[at].flags = ioctl_getflags(&directory).map_or(0, |flags| flags.bits());
            rustix::process::fchdir(&directory)?;
            self.entries[at].xattrs = xattrs(c".")?;
        }
        let mut names = Vec::new();
        for item in Dir::read_from(&directory)? {
            let item = item?;
            if item.file_name() != c"." && item.file_name() != c".." {
                names.push(item.file_name().to_owned());
            }
        }
        names.sort();
        for name in names {
            let shown = escape(name.to_bytes());
            let below = if path.is_empty() { shown } else { format!("{path}/{shown}") };
            self.child(&directory, &name, &below)
                .map_err(|error| io::Error::new(error.kind(), format!("{below}: {error}")))?;
        }
        Ok(())
    }

    fn child(&mut self, parent: &OwnedFd, name: &std::ffi::CStr, path: &str) -> io::Result<()> {
        let stat = statx(parent, name, AtFlags::SYMLINK_NOFOLLOW, fields())?;
        let at = self.push(path, &stat);
        match self.entries[at].kind {
            Kind::Directory => {
                let flags =
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
                let directory = openat(parent, name, flags, Mode::empty())?;
                self.directory(directory, path, at)?;
                // The children's walk has left the working directory elsewhere.
                if self.depth.attributes {
                    rustix::process::fchdir(parent)?;
                }
                return Ok(());
            }
            Kind::File => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::CLOEXEC;
                let file = openat(parent, name, flags, Mode::empty())?;
                if self.depth.attributes {
                    self.entries[at].flags = ioctl_getflags(&file).map_or(0, |flags| flags.bits());
                }
                if self.entries[at].link_to.is_none() {
                    self.entries[at].content = Some(self.content(&file, &stat)?);
                }
            }
            Kind::Symlink => {
                self.entries[at].target = Some(escape(readlinkat(parent, name, Vec::new())?.as_bytes()));
                self.put_back(parent, name, &stat)?;
            }
            Kind::Character | Kind::Block | Kind::Fifo | Kind::Socket | Kind::Unknown => {}
        }
        if self.depth.attributes {
            self.entries[at].xattrs = xattrs(name)?;
        }
        Ok(())
    }

    /// Reading a symlink changes its access time, and there is no way not to.
    fn put_back(&self, parent: &OwnedFd, name: &std::ffi::CStr, stat: &Statx) -> io::Result<()> {
        if !self.depth.restore {
            return Ok(());
        }
        let time = |sec: i64, nsec: u32| Timespec { tv_sec: sec, tv_nsec: nsec.into() };
        let times = Timestamps {
            last_access: time(stat.stx_atime.tv_sec, stat.stx_atime.tv_nsec),
            last_modification: time(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        };
        Ok(utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn content(&self, file: &OwnedFd, stat: &Statx) -> io::Result<String> {
        let mut sum = Sha256::new();
        let mut buffer = vec![0u8; WINDOW];
        let sparse = stat.stx_blocks.saturating_mul(512) < stat.stx_size;
        let mut offset = 0u64;
        while offset < stat.stx_size {
            if sparse && !self.ramfs {
                offset = match seek(file, SeekFrom::Data(offset)) {
                    Ok(data) => data - data % PAGE as u64,
                    Err(rustix::io::Errno::NXIO) => break,
                    Err(error) => return Err(error.into()),
                };
            }
            let len = usize::try_from(stat.stx_size - offset).map_or(WINDOW, |rest| rest.min(WINDOW));
            let resident =
                if sparse && self.ramfs { Some(crate::sys::resident(file, offset, len)?) } else { None };
            for (number, page) in buffer[..len].chunks_mut(PAGE).enumerate() {
                let at = offset + (number * PAGE) as u64;
                if resident.as_ref().is_none_or(|pages| pages[number]) {
                    read_exactly(file.as_fd(), page, at)?;
                    if page.iter().any(|byte| *byte != 0) {
                        sum.update((at / PAGE as u64).to_le_bytes());
                        sum.update(page_sum(page).to_le_bytes());
                    }
                }
            }
            offset += len as u64;
        }
        sum.update(stat.stx_size.to_le_bytes());
        Ok(hex(&sum.finalize()))
    }
}

/// Each step maps different sums to different sums, so that no single changed word can go unseen.
fn page_sum(page: &[u8]) -> u64 {
    page.chunks(8).fold(page.len() as u64, |sum, word| {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        (sum ^ u64::from_le_bytes(bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}

fn read_exactly(file: BorrowedFd<'_>, page: &mut [u8], mut at: u64) -> io::Result<()> {
    let mut rest = page;
    while !rest.is_empty() {
        match rustix::io::pread(file, &mut *rest, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                rest = &mut rest[read..];
                at += read as u64;
            }
        }
    }
    Ok(())
}

/// All attributes of a name in the working directory. ramfs has none at all and says so.
fn xattrs(name: &std::ffi::CStr) -> io::Result<BTreeMap<String, String>> {
    let mut list = vec![0u8; 64 << 10];
    let len = match rustix::fs::llistxattr(name, &mut *list) {
        Ok(len) => len,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for key in list[..len].split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
        let mut value = vec![0u8; 64 << 10];
        let len = rustix::fs::lgetxattr(name, key, &mut *value)?;
        found.insert(escape(key), hex(&value[..len]));
    }
    Ok(found)
}

fn kind(stat: &Statx) -> Kind {
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::Character,
        FileType::BlockDevice => Kind::Block,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::page_sum;

    #[test]
    fn every_byte_and_its_place_count() {
        let page = [7u8; PAGE_OF_TEST];
        for at in [0, 1, 8, 4094] {
            let mut other = page;
            other[at] ^= 1;
            assert_ne!(page_sum(&page), page_sum(&other), "byte {at}");
        }
        let (mut one, mut other) = (page, page);
        (one[0], other[8]) = (1, 1);
        assert_ne!(page_sum(&one), page_sum(&other));
        assert_ne!(page_sum(&page), page_sum(&page[..4088]));
    }

    const PAGE_OF_TEST: usize = 4095;
}
