//! The classic way to move a tree: three walks, whole files through a buffer of 32 KiB, one thread, by path.
//!
//! First it creates all directories with owner, mode and times. Then it copies each file and unlinks the
//! original. At last it removes the old tree. It loses extended attributes, hard links and the times of
//! directories, as the original does.

use crate::{Done, say, stamp};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const BUFFER: usize = 32 << 10;

pub(crate) fn relocate(old: &Path, new: &Path) -> Done {
    say(&format!("start {}", stamp()))?;
    let device = old.symlink_metadata()?.dev();
    walk(old, device, &mut |path, meta| {
        if meta.is_dir() { directory(&below(old, new, path), meta) } else { Ok(()) }
    })?;
    let mut buffer = vec![0; BUFFER];
    walk(old, device, &mut |path, meta| {
        if meta.is_dir() { Ok(()) } else { entry(&mut buffer, path, &below(old, new, path), meta) }
    })?;
    for item in old.read_dir()? {
        let path = item?.path();
        let meta = path.symlink_metadata()?;
        match meta.is_dir() {
            // The mount point of the new root, which is still mounted.
            true if meta.dev() != device => {}
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    say(&format!("end {}", stamp()))?;
    Ok(())
}

fn below(old: &Path, new: &Path, path: &Path) -> PathBuf {
    new.join(path.strip_prefix(old).unwrap_or(path))
}

/// Visits every entry of the tree below `path`, in the order of names, directories before their contents.
/// Does not enter mounts.
fn walk(
    path: &Path,
    device: u64,
    visit: &mut dyn FnMut(&Path, &Metadata) -> io::Result<()>,
) -> io::Result<()> {
    let mut paths: Vec<PathBuf> = path.read_dir()?.map(|item| Ok(item?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        let meta = path.symlink_metadata()?;
        visit(&path, &meta)?;
        if meta.is_dir() && meta.dev() == device {
            walk(&path, device, visit)?;
        }
    }
    Ok(())
}

fn directory(new: &Path, meta: &Metadata) -> io::Result<()> {
    fs::create_dir(new)?;
    attributes(new, meta)
}

fn entry(buffer: &mut [u8], old: &Path, new: &Path, meta: &Metadata) -> io::Result<()> {
    if meta.is_symlink() {
        symlink(old.read_link()?, new)?;
        std::os::unix::fs::lchown(new, Some(meta.uid()), Some(meta.gid()))?;
    } else if meta.is_file() {
        let (mut from, mut to) = (File::open(old)?, File::create(new)?);
        loop {
            let read = from.read(buffer)?;
            if read == 0 {
                break;
            }
            to.write_all(&buffer[..read])?;
        }
        attributes(new, meta)?;
    } else {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let mode = Mode::from_raw_mode(meta.mode());
        mknodat(CWD, new, FileType::from_raw_mode(meta.mode()), mode, meta.rdev())?;
        attributes(new, meta)?;
    }
    fs::remove_file(old)
}

fn attributes(new: &Path, meta: &Metadata) -> io::Result<()> {
    std::os::unix::fs::chown(new, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(new, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let times = Timestamps {
        last_access: Timespec { tv_sec: meta.atime(), tv_nsec: meta.atime_nsec() },
        last_modification: Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() },
    };
    Ok(utimensat(CWD, new, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
