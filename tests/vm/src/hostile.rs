//! A tree with everything an archive can carry that a mover has got wrong somewhere.

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, chownat, makedev, mknodat, utimensat,
};
use std::ffi::OsStr;
use std::fs::{Permissions, create_dir, create_dir_all, hard_link, set_permissions, write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Adds it below `root`.
pub(crate) fn add(root: &Path) -> Result<()> {
    sizes(&root.join("sizes")).context("sizes")?;
    names(&root.join("names")).context("names")?;
    modes(&root.join("modes")).context("modes")?;
    specials(&root.join("specials")).context("specials")?;
    links(&root.join("links")).context("links")?;
    times(&root.join("times")).context("times")?;
    deep(&root.join("deep")).context("deep")?;
    // A mover that mounts its new root on /mnt loses what is there.
    write(root.join("mnt/inside"), "kept\n").context("mnt")
}

fn sizes(at: &Path) -> Result<()> {
    create_dir(at)?;
    for size in [0usize, 1, 4095, 4096, 4097, 65_536, 3 << 20] {
        let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at * 7 % 251).unwrap_or(0)).collect();
        write(at.join(format!("{size}")), bytes)?;
    }
    write(at.join("zeros"), vec![0u8; 100_000])?;
    create_dir(at.join("many"))?;
    for number in 0..400 {
        write(at.join(format!("many/{number}")), format!("{number}"))?;
    }
    Ok(())
}

fn names(at: &Path) -> Result<()> {
    create_dir(at)?;
    let long = vec![b'n'; 255];
    let names: [&[u8]; 9] = [
        b"new\nline",
        b"back\\slash",
        b"\xff\xfe",
        b" ",
        b"-rf",
        b"...",
        b"TRAILER!!!",
        "höhe".as_bytes(),
        &long,
    ];
    // Of one age: the list of entries shows these names in another form, so nothing can date them by it.
    let time = Timespec { tv_sec: 999_999_999, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for name in names {
        let path = at.join(OsStr::from_bytes(name));
        write(&path, name)?;
        utimensat(CWD, &path, &times, AtFlags::empty())?;
    }
    Ok(())
}

fn modes(at: &Path) -> Result<()> {
    create_dir(at)?;
    for mode in [0o0u32, 0o400, 0o644, 0o777, 0o1755, 0o2755, 0o4755, 0o6711, 0o7777] {
        let file = at.join(format!("file-{mode:o}"));
        write(&file, b"x")?;
        own(&file, 1000, 100)?;
        set_permissions(&file, Permissions::from_mode(mode))?;
        let folder = at.join(format!("folder-{mode:o}"));
        create_dir(&folder)?;
        write(folder.join("inside"), b"y")?;
        own(&folder, 65_534, 4_000_000_000)?;
        set_permissions(&folder, Permissions::from_mode(mode))?;
    }
    let link = at.join("link");
    symlink("file-644", &link)?;
    own(&link, 12, 34)
}

fn own(path: &Path, user: u32, group: u32) -> Result<()> {
    let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    chownat(CWD, path, user, group, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("chown {}", path.display()))
}

fn specials(at: &Path) -> Result<()> {
    create_dir(at)?;
    for (name, kind, device) in [
        ("whiteout", FileType::CharacterDevice, (0, 0)),
        ("zero", FileType::CharacterDevice, (1, 5)),
        ("high", FileType::CharacterDevice, (511, 1_048_575)),
        ("disk", FileType::BlockDevice, (8, 0)),
        ("block-zero", FileType::BlockDevice, (0, 0)),
        ("fifo", FileType::Fifo, (0, 0)),
        ("socket", FileType::Socket, (0, 0)),
    ] {
        let path = at.join(name);
        mknodat(CWD, &path, kind, Mode::from_raw_mode(0o640), makedev(device.0, device.1))
            .with_context(|| format!("mknod {name}"))?;
        own(&path, 7, 8)?;
    }
    symlink("/nowhere", at.join("dangling"))?;
    symlink("loop", at.join("loop"))?;
    Ok(symlink("long/".repeat(800), at.join("long"))?)
}

/// Several links to one inode, of every kind of file the kernel unpacks as one, in several directories.
fn links(at: &Path) -> Result<()> {
    create_dir_all(at.join("b/c"))?;
    write(at.join("z-file"), vec![9u8; 10_000])?;
    write(at.join("empty"), b"")?;
    mknodat(CWD, at.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    mknodat(CWD, at.join("device"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(1, 7))?;
    // Not a symlink: the kernel makes a new one for each name in the archive.
    for name in ["z-file", "empty", "fifo", "device"] {
        hard_link(at.join(name), at.join(format!("b/{name}")))?;
        hard_link(at.join(name), at.join(format!("b/c/a-{name}")))?;
    }
    Ok(())
}

/// Directories of known age with something in them: making the entry changes it.
fn times(at: &Path) -> Result<()> {
    create_dir_all(at.join("one/two/three"))?;
    Ok(write(at.join("one/two/three/file"), b"t")?)
}

fn deep(at: &Path) -> Result<()> {
    let mut path = at.to_owned();
    for level in 0..150 {
        path.push(format!("level-{level}"));
    }
    create_dir_all(&path)?;
    Ok(write(path.join("bottom"), b"b")?)
}
