//! Opening paths below a directory as if that were the root: no name and no symbolic link leads out of it.
//!
//! `openat2` does that in one call, since Linux 5.6. Old container runtimes and QEMU's user emulation before
//! 9.2 refuse it. Then the path is walked one component at a time, and a symbolic link is read before it is
//! followed.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

use crate::tree::path::split;

/// Symbolic links that the kernel follows in one path.
const LINKS: usize = 40;

/// Opens a directory, through symbolic links as in a booted system.
pub(super) fn directory(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        Err(error) if is_refused(error) => walk(root, path, Links::Follow, flags),
        opened => opened,
    }
}

/// Opens a directory that must not be a symbolic link itself, to read it.
pub(super) fn unlinked(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        Err(error) if is_refused(error) => {
            let (above, name) = split(path);
            let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(walk(root, above, Links::Follow, through)?, name, flags, Mode::empty())
        }
        opened => opened,
    }
}

/// Opens what has this path, which no symbolic link is part of.
pub(super) fn exactly(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        Err(error) if is_refused(error) => walk(root, path, Links::Refuse, flags),
        opened => opened,
    }
}

/// The kernel has no such call, or a sandbox forbids it. The call itself never returns the second error for
/// these flags.
fn is_refused(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::PERM)
}

/// What to do with symbolic links on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    Follow,
    Refuse,
}

fn walk(root: BorrowedFd<'_>, path: &[u8], links: Links, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let through = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if links == Links::Refuse && path.starts_with(b"/") {
        return Err(Errno::XDEV);
    }
    // The components that are left, the next one last, and the directories from the root on.
    let mut left = components(path);
    let mut above: Vec<OwnedFd> = Vec::new();
    let mut followed = 0;
    while let Some(name) = left.pop() {
        let here = above.last().map_or(root, AsFd::as_fd);
        match &name[..] {
            b"" | b"." => continue,
            b".." if links == Links::Refuse => return Err(Errno::XDEV),
            // The root is its own parent.
            b".." => {
                above.pop();
                continue;
            }
            _ => {}
        }
        let next = openat(here, &name[..], through, Mode::empty())?;
        let kind = FileType::from_raw_mode(fstat(&next)?.st_mode);
        if kind == FileType::Directory {
            above.push(next);
        } else if kind == FileType::Symlink && links == Links::Follow {
            followed += 1;
            if followed > LINKS {
                return Err(Errno::LOOP);
            }
            let target = readlinkat(&next, "", Vec::new())?.into_bytes();
            if target.starts_with(b"/") {
                above.clear();
            }
            left.extend(components(&target));
        } else if left.is_empty() && !flags.contains(OFlags::DIRECTORY) {
            // The last component may be a link itself, or anything else.
            return openat(here, &name[..], flags, Mode::empty());
        } else {
            return Err(if kind == FileType::Symlink { Errno::LOOP } else { Errno::NOTDIR });
        }
    }
    openat(above.last().map_or(root, AsFd::as_fd), ".", flags, Mode::empty())
}

/// The components of a path, the first one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.rsplit(|&byte| byte == b'/').map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::{Links, directory, exactly, walk};
    use rustix::fd::{AsFd, OwnedFd};
    use rustix::fs::{OFlags, fstat};
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    /// What was opened, or the error.
    fn result(opened: rustix::io::Result<OwnedFd>) -> Result<u64, i32> {
        opened.map_err(rustix::io::Errno::raw_os_error).map(|fd| fstat(fd).unwrap().st_ino)
    }

    #[test]
    fn a_walk_opens_what_openat2_opens() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::create_dir_all(folder.path().join("outside")).unwrap();
        fs::write(root.join("a/file"), "").unwrap();
        for (name, target) in [
            ("to-b", "a/b"),
            ("absolute", "/a/b"),
            ("out", "../../outside"),
            ("out-absolute", "/../../outside"),
            ("self", "self"),
            ("to-file", "a/file"),
            ("nowhere", "missing"),
            ("a/b/up", "../../to-b/./c"),
            ("top", "/"),
        ] {
            symlink(target, root.join(name)).unwrap();
        }
        // The longest chain of links that the kernel follows, and one more.
        symlink("a", root.join("chain-0")).unwrap();
        for number in 1..=40 {
            symlink(format!("chain-{}", number - 1), root.join(format!("chain-{number}"))).unwrap();
        }
        let root = File::open(&root).unwrap();
        let root = root.as_fd();
        let mut opened = 0;
        for path in [
            "",
            ".",
            "a",
            "a/b/c",
            "a//b/",
            "/a",
            "..",
            "../a",
            "a/../../a",
            "to-b",
            "to-b/c",
            "absolute/c",
            "out",
            "out-absolute",
            "out/x",
            "self",
            "self/x",
            "to-file",
            "to-file/x",
            "nowhere",
            "nowhere/x",
            "missing/..",
            "a/file",
            "a/file/..",
            "a/b/up",
            "a/b/up/..",
            "top",
            "top/top/a",
            "chain-39",
            "chain-40",
            "chain-38/b",
        ] {
            let path = path.as_bytes();
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            // An empty path is the only one that differs: it names nothing for the kernel.
            if !path.is_empty() {
                let walked = result(walk(root, path, Links::Follow, flags));
                assert_eq!(walked, result(directory(root, path)), "{}", path.escape_ascii());
                opened += usize::from(walked.is_ok());
                for flags in [OFlags::PATH, OFlags::RDONLY | OFlags::DIRECTORY] {
                    let all = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let walked = result(walk(root, path, Links::Refuse, all));
                    let called = result(exactly(root, path, flags));
                    assert_eq!(walked.ok(), called.ok(), "{} {flags:?}", path.escape_ascii());
                }
            }
        }
        assert!(opened > 12, "{opened}");
    }
}
