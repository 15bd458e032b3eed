//! A directory on disk as a source, without what is mounted below it.
//!
//! Names and attributes are read first, file contents when the image is written. Directories are opened
//! through descriptors with `O_NOFOLLOW`, so a symbolic link that is swapped in meanwhile is not followed.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, Dir, FileType, RawMode, Stat};
use rustix::io::Errno;

use super::fakeroot::State;
use super::notes::{EARLY, LATE, Notes};
use crate::newc::{NAME_MAX, Totals, Writer};
use crate::report::name::shown;
use crate::tree::beneath::Beneath;
use crate::tree::{Attributes, Contents, Entries, Id, Inode, Kind, Seen, Tree};

/// The contents of a directory.
#[derive(Debug)]
pub struct Scan {
    /// The tree, whose files are read from the directory.
    pub tree: Tree,
    /// Mount points below the directory, which are empty directories in the tree.
    pub mounts: Vec<Vec<u8>>,
    /// What the tree cannot hold.
    pub notes: Notes,
}

/// Reads the tree below `root`.
pub fn scan(root: &Path) -> Result<Scan> {
    scan_as(root, None)
}

/// Reads the tree below `root` as fakeroot shows it, if there is a state.
pub fn scan_as(root: &Path, state: Option<&mut State>) -> Result<Scan> {
    let beneath = Arc::new(Beneath::open(root)?);
    let mut stat =
        rustix::fs::fstat(beneath.fd()).with_context(|| format!("cannot stat {}", root.display()))?;
    let device = stat.st_dev;
    let mut state = state;
    if let Some(state) = &mut state {
        state.seen(&mut stat);
    }
    let link = format!("/proc/self/fd/{}", beneath.fd().as_raw_fd());
    ensure!(
        Path::new(&link).exists(),
        "cannot read the extended attributes of {}: /proc is not mounted (mount -t proc proc /proc)",
        root.display()
    );
    // This follows the link in /proc to the open directory. Below it, links are never followed.
    let xattrs =
        xattrs(|out| rustix::fs::listxattr(&*link, out), |name, out| rustix::fs::getxattr(&*link, name, out))
            .with_context(|| format!("cannot read the extended attributes of {}", root.display()))?;
    let tree = Tree::new(attributes(&stat, xattrs));
    let mut scanner = Scanner {
        beneath,
        device,
        links: HashMap::new(),
        tree,
        mounts: Vec::new(),
        state,
        notes: Notes::default(),
    };
    let mut waiting = vec![(Tree::ROOT, Vec::new())];
    while let Some((directory, path)) = waiting.pop() {
        scanner
            .directory(directory, &path, &mut waiting)
            .with_context(|| format!("cannot read {}/{}", root.display(), shown(&path)))?;
    }
    scanner.mounts.sort();
    Ok(Scan { tree: scanner.tree, mounts: scanner.mounts, notes: scanner.notes })
}

/// Packs the directory at `root` as one archive: sorted by name, hard links kept, inode numbers in order of
/// appearance.
///
/// What is mounted below the directory is left out; each mount point is packed as an empty directory.
///
/// ```no_run
/// let out = std::fs::File::create("root.cpio")?;
/// let totals = repot_cli::source::directory::pack("root".as_ref(), out)?;
/// println!("{} entries", totals.entries);
/// # anyhow::Ok(())
/// ```
pub fn pack<W: Write>(root: &Path, out: W) -> Result<Totals> {
    let scan = scan(root)?;
    let mut writer = Writer::new(out);
    scan.tree.write(&mut writer)?;
    let totals = writer.totals();
    writer.finish()?;
    Ok(totals)
}

struct Scanner<'a> {
    beneath: Arc<Beneath>,
    device: u64,
    links: HashMap<(u64, u64), Id>,
    tree: Tree,
    mounts: Vec<Vec<u8>>,
    state: Option<&'a mut State>,
    notes: Notes,
}

impl Scanner<'_> {
    fn directory(&mut self, id: Id, path: &[u8], waiting: &mut Vec<(Id, Vec<u8>)>) -> Result<()> {
        let fd = self.beneath.directory(if path.is_empty() { b"." } else { path })?;
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let child = if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() };
            let inode = self
                .entry(rustix::fd::AsFd::as_fd(&fd), name, &child, waiting)
                .with_context(|| shown(name))?;
            self.tree.link(id, name, inode);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        fd: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        waiting: &mut Vec<(Id, Vec<u8>)>,
    ) -> Result<Id> {
        anyhow::ensure!(
            path.len() <= NAME_MAX,
            "the path is longer than {NAME_MAX} bytes, the limit of newc"
        );
        let mut stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if let Some(state) = &mut self.state {
            state.seen(&mut stat);
        }
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !directory
            && stat.st_nlink > 1
            && let Some(&id) = self.links.get(&(stat.st_dev, stat.st_ino))
        {
            return Ok(id);
        }
        let at = [format!("/proc/self/fd/{}/", fd.as_raw_fd()).as_bytes(), name].concat();
        let xattrs = xattrs(
            |out| rustix::fs::llistxattr(&*at, out),
            |name, out| rustix::fs::lgetxattr(&*at, name, out),
        )?;
        let kind = self.kind(fd, name, path, &stat)?;
        note_time(&stat, path, &mut self.notes);
        let id = self.tree.add(Inode { attributes: attributes(&stat, xattrs), kind });
        if directory {
            if stat.st_dev == self.device {
                waiting.push((id, path.to_vec()));
            } else {
                self.mounts.push(path.to_vec());
            }
        } else if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), id);
        }
        Ok(id)
    }

    fn kind(&self, fd: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Result<Kind> {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory(Entries::new()),
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).context("its size is negative")?;
                let modified = (stat.st_mtime, stat.st_mtime_nsec.try_into().unwrap_or(0));
                let seen = Seen { size, inode: stat.st_ino, modified };
                Kind::File(Contents::Disk(self.beneath.clone(), path.into(), seen))
            }
            FileType::Symlink => {
                Kind::Symlink(rustix::fs::readlinkat(fd, name, Vec::new())?.as_bytes().into())
            }
            FileType::CharacterDevice => Kind::Character(major, minor),
            FileType::BlockDevice => Kind::Block(major, minor),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::Unknown => anyhow::bail!("unknown file type (mode {:o})", stat.st_mode),
        })
    }
}

/// newc holds unsigned seconds of 32 bits.
fn note_time(stat: &Stat, path: &[u8], notes: &mut Notes) {
    if stat.st_mtime < 0 {
        notes.add(EARLY, path);
    } else if stat.st_mtime > i64::from(u32::MAX) {
        notes.add(LATE, path);
    }
}

fn attributes(stat: &Stat, xattrs: BTreeMap<Vec<u8>, Vec<u8>>) -> Attributes {
    let permissions: RawMode = stat.st_mode & 0o7777;
    // newc holds unsigned seconds: times before 1970 or after 2106 are clamped.
    let mtime = u32::try_from(stat.st_mtime.max(0)).unwrap_or(u32::MAX);
    let kept = u32::try_from(stat.st_mtime).is_ok();
    let nanoseconds = if kept { u32::try_from(stat.st_mtime_nsec).unwrap_or(0) } else { 0 };
    Attributes { permissions, uid: stat.st_uid, gid: stat.st_gid, mtime, nanoseconds, xattrs }
}

/// The extended attributes that a tmpfs can hold. Others have a meaning only for their own file system.
fn xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let names = match whole(&list) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(found),
        Err(error) => return Err(error.into()),
    };
    for name in names.split(|&byte| byte == 0) {
        if [&b"user."[..], b"trusted.", b"security.", b"system.posix_acl_"]
            .iter()
            .any(|ns| name.starts_with(ns))
        {
            found.insert(name.to_vec(), whole(|out| get(name, out))?);
        }
    }
    Ok(found)
}

/// Reads a list or value of up to 64 KiB (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`), a small one with one call.
fn whole(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = [0; 512];
    match read(&mut buffer) {
        Ok(len) => Ok(buffer[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut buffer = vec![0; 64 << 10];
            let len = read(&mut buffer)?;
            buffer.truncate(len);
            Ok(buffer)
        }
        Err(error) => Err(error),
    }
}
