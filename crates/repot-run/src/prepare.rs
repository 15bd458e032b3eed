//! What a program expects of its machine before it starts.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;

use repot::display::Quoted;
use repot::error::name_of;
use repot::essential::{ESSENTIAL, is_mounted};
use repot::run::{DESCRIPTION, Program, RUNNER};
use rustix::fs::{
    CWD, Mode, OFlags, RawDir, StatVfsMountFlags, chmod, fstatvfs, mkdirat, open, openat, statfs, unlinkat,
};
use rustix::io::{Errno, read as read_some};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{sethostname, uname};

use crate::log::{error, is_machine, warn};
use crate::{drivers, network};

/// The maximum size of a description, in bytes. The kernel takes at most 2 MiB of arguments and environment
/// with the default stack.
const LARGEST: usize = 8 << 20;

/// The types of a root in memory (statfs(2)).
const RAMFS: u64 = 0x8584_58f6;
const TMPFS: u64 = 0x0102_1994;

/// Opens the console as the standard streams, where they are not open.
pub(crate) fn console() {
    repot::handoff::console(is_machine());
}

/// Mounts what is not mounted yet. `/run` and `/tmp` are as the image has them if the root is in memory; on
/// another root, and on a read-only one, they become tmpfs.
pub(crate) fn mounts() {
    let in_memory = root_is_in_memory();
    let read_only = open(c"/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|root| fstatvfs(&root))
        .is_ok_and(|statvfs| statvfs.f_flag.contains(StatVfsMountFlags::RDONLY));
    for essential in &ESSENTIAL {
        let wanted = match essential.name {
            "run" => !in_memory && (read_only || is_empty(essential.path)),
            "tmp" => read_only,
            _ => true,
        };
        if !wanted {
            if !is_mounted(essential.path) {
                directory(essential.path, if essential.name == "tmp" { 0o1777 } else { 0o755 });
            }
        } else if let Err(fault) = essential.mount()
            && !is_optional(essential.name, fault.errno)
        {
            warn(format_args!("run: {fault}"));
        }
    }
}

/// Whether the kernel may be built without this file system.
fn is_optional(name: &str, errno: Errno) -> bool {
    matches!(name, "mqueue" | "cgroup2" | "devpts") && matches!(errno, Errno::NODEV | Errno::NOENT)
}

/// Makes a directory if it is missing.
fn directory(path: &CStr, mode: u32) {
    if mkdirat(CWD, path, Mode::from_raw_mode(mode)).is_ok() {
        // The umask does not apply to chmod.
        let _ = chmod(path, Mode::from_raw_mode(mode));
    }
}

fn is_empty(path: &CStr) -> bool {
    let Ok(dir) = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        return true;
    };
    let mut buffer = Vec::with_capacity(1024);
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(Ok(entry)) = entries.next() {
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return false;
        }
    }
    true
}

/// Sets what concerns the whole machine: drivers, host name, network, limits.
pub(crate) fn machine(program: &Program) {
    drivers::load();
    hostname(program);
    network::prepare();
    // As service managers set it: a program that wants more raises it itself.
    let limit = Rlimit { current: Some(1024), maximum: Some(524_288) };
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Mounts the directories of the host. Returns whether all are there: a program that finds an empty directory
/// instead could take it for its data.
pub(crate) fn shares(program: &Program) -> bool {
    for share in &program.shares {
        if let Err(fault) = share.mount() {
            let tag = Quoted(share.tag.to_bytes());
            let kind = share.transport.fstype().to_bytes().escape_ascii();
            let why = match fault.errno {
                Errno::NODEV => ": the kernel has no driver for it",
                Errno::NOENT | Errno::INVAL => ": the machine has no share of this name",
                _ => "",
            };
            error(format_args!("run: {kind} share {tag}: {fault}{why}; the program is not started"));
            return false;
        }
    }
    true
}

/// The host name of the description, else of `/etc/hostname`, else the one that the kernel has (`ip=`), else
/// `localhost`.
fn hostname(program: &Program) {
    let file = read(b"/etc/hostname").unwrap_or_default();
    let file = file.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let kernel = uname();
    let name = match &program.hostname {
        Some(name) => name,
        None if !file.is_empty() => file,
        None if !matches!(kernel.nodename().to_bytes(), b"" | b"(none)") => return,
        None => b"localhost",
    };
    if let Err(errno) = sethostname(name) {
        let (error, meaning) = name_of(errno);
        warn(format_args!("run: sethostname {}: {error} ({meaning})", Quoted(name)));
    }
}

/// Removes what the tool put into the image, once it has served. A root that is not in memory keeps it for
/// the next boot.
pub(crate) fn tidy() {
    if !root_is_in_memory() {
        return;
    }
    for name in [DESCRIPTION, RUNNER] {
        if let Ok(name) = CString::new(alloc::format!("/{name}")) {
            let _ = unlinkat(CWD, &name, rustix::fs::AtFlags::empty());
        }
    }
    drivers::remove();
}

#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
pub(crate) fn root_is_in_memory() -> bool {
    statfs(c"/").is_ok_and(|statfs| matches!(statfs.f_type as u64 & 0xffff_ffff, RAMFS | TMPFS))
}

/// Reads a whole small file.
pub(crate) fn read(path: &[u8]) -> Result<Vec<u8>, Errno> {
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    loop {
        let length = text.len();
        if length > LARGEST {
            return Err(Errno::FBIG);
        }
        text.resize(length + 4096, 0);
        let count = match read_some(&file, &mut text[length..]) {
            Err(Errno::INTR) => 0,
            Ok(0) => {
                text.truncate(length);
                return Ok(text);
            }
            other => other?,
        };
        text.truncate(length + count);
    }
}
