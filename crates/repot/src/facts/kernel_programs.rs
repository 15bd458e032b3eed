//! The programs that the kernel itself starts, such as modprobe(8), and what they read: they move last, so
//! that they are missing for as short as possible.

use alloc::format;
use alloc::vec::Vec;

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, utimensat};
use rustix::io::pread;

use super::program::Program;
use crate::metadata::{At, Meta};
use crate::site::Site;

/// Sysctls that name a program, and a program that the kernel names itself (`call_sbin_request_key`).
const SYSCTLS: [&str; 3] = ["modprobe", "hotplug", "core_pattern"];
const REQUEST_KEY: &[u8] = b"/sbin/request-key";

/// What the kernel and modprobe(8) read.
const READ: [&[u8]; 5] =
    [b"lib/modules", b"lib/firmware", b"etc/modprobe.d", b"etc/modprobe.conf", b"etc/ld.so.cache"];
/// Where a dynamic linker finds libraries. These directories move last as a whole.
const LIBRARIES: [&[u8]; 4] = [b"lib", b"lib64", b"usr/lib", b"usr/lib64"];

/// Their inode numbers in the old root, with those of the symbolic links on the way.
pub(super) fn kernel_programs(site: &Site) -> Vec<u64> {
    let mut found = Vec::new();
    let mut dynamic = false;
    let sysctls = SYSCTLS.map(|name| site.proc_file(&["sys/kernel/", name].concat()).unwrap_or_default());
    for text in sysctls.iter().map(Vec::as_slice).chain([REQUEST_KEY]) {
        // core_pattern(5): without a pipe it is a file to create.
        let text = text.trim_ascii();
        let text = text.strip_prefix(b"|").unwrap_or(text);
        let mut path = text.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec();
        // A script has an interpreter, which may have a dynamic linker.
        for _ in 0..3 {
            if !path.starts_with(b"/") {
                break;
            }
            let Some(program) = trail(site, &path, &mut found).and_then(|file| read(site, &file)) else {
                break;
            };
            let Some(interpreter) = program.interpreter else { break };
            dynamic |= program.architecture.is_some();
            path = interpreter;
        }
    }
    let libraries = if dynamic { &LIBRARIES[..] } else { &[] };
    for path in READ.iter().chain(libraries) {
        trail(site, path, &mut found);
    }
    found
}

/// The maximum number of symbolic links in a path (`MAXSYMLINKS`).
const LINKS: u32 = 40;

fn read(site: &Site, file: &OwnedFd) -> Option<Program> {
    if Meta::read(At::Open(file.as_fd())).ok()?.kind != FileType::RegularFile {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
    let path = format!("self/fd/{}", file.as_raw_fd());
    let file = openat(&site.proc, path, flags, Mode::empty()).ok()?;
    Program::read(&mut |offset, buffer| pread(&file, buffer, offset)).ok()
}

/// Collects the inode numbers of the symbolic links in a path, and of the entry that it leads to, which it
/// returns.
fn trail(site: &Site, path: &[u8], found: &mut Vec<u64>) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |dir: &OwnedFd, name: &[u8]| openat(dir, name, flags, Mode::empty()).ok();
    // The next name is the last.
    let mut names = Vec::new();
    prepend(&mut names, path);
    let mut parents = Vec::new();
    let mut at = open(&site.old, b".")?;
    let mut links = 0;
    while let Some(name) = names.pop() {
        if name == b".." {
            // Above the root there is the root.
            at = parents.pop().unwrap_or(at);
            continue;
        }
        let next = open(&at, &name)?;
        let meta = Meta::read(At::Open(next.as_fd())).ok()?;
        if meta.kind != FileType::Symlink {
            parents.push(core::mem::replace(&mut at, next));
            continue;
        }
        found.push(meta.inode);
        links += 1;
        if links > LINKS {
            return None;
        }
        let target = readlinkat(&next, c"", Vec::new()).ok()?.into_bytes();
        // readlink(2) changes the access time.
        let _ = utimensat(&at, name.as_slice(), &meta.times(), AtFlags::SYMLINK_NOFOLLOW);
        if target.starts_with(b"/") {
            parents.clear();
            at = open(&site.old, b".")?;
        }
        prepend(&mut names, &target);
    }
    if !parents.is_empty() {
        found.push(Meta::read(At::Open(at.as_fd())).ok()?.inode);
    }
    Some(at)
}

fn prepend(names: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.rsplit(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.extend(parts.map(<[u8]>::to_vec));
}
