//! Looks at the system and touches nothing: what `/` is, its mounts, its tree, memory, command line, which init can run.
//!
//! procfs is read through a mount that is attached nowhere. The tree is seen through a clone of the root mount alone, so
//! nothing that is mounted below it can be seen, copied or deleted through it, and what a mount hides is seen.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, StatxFlags, fstatfs, ioctl_getflags, openat, openat2,
    readlinkat, statx,
};
use rustix::io::{Errno, read};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen, open_tree,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cmdline;
use crate::error::{Call, Error, Fault, Step};
use crate::metadata::{At, Meta};
use crate::mountinfo::{self, Mount};
use crate::options::{Mode as Choice, Options};
use crate::payload::{self, Found};
use crate::program::{self, Candidate, Machine};
use crate::survey::{Survey, survey};
use crate::sys;
use crate::unpacking::{self, Unpacking};

/// What is held open of the system while it is looked at and changed.
#[derive(Debug)]
pub struct Site {
    /// A procfs that is mounted nowhere.
    pub(crate) proc: OwnedFd,
    /// `/`, through which mounts are seen.
    pub(crate) root: OwnedFd,
    /// The same directory through a clone of its mount alone, which is mounted nowhere.
    pub(crate) old: OwnedFd,
}

impl Site {
    /// Opens them; mounts nothing.
    ///
    /// # Errors
    /// Where the kernel lacks a call (`fsopen` and `open_tree` came with 5.2) or this process may not mount.
    pub fn open() -> Result<Site, Error> {
        Site::try_open().map_err(|fault| fault.at(Step::Facts))
    }

    fn try_open() -> Result<Site, Fault> {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).on("fsopen", b"proc")?;
        fsconfig_create(context.as_fd()).on("fsconfig", b"proc")?;
        let proc = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .on("fsmount", b"proc")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
        let root = openat(CWD, "/", flags, Mode::empty()).on("openat", b"/")?;
        let clone = open_tree(
            &root,
            "",
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH,
        )
        .on("open_tree", b"/")?;
        let old = openat(&clone, c".", flags, Mode::empty()).on("openat", b"/")?;
        Ok(Site { proc, root, old })
    }

    /// Whether this process is in the first pid namespace, so that the machine is its own.
    pub fn machine(&self) -> bool {
        readlinkat(&self.proc, "self/ns/pid", Vec::new()).is_ok_and(|name| name.as_bytes() == INITIAL_PIDS)
    }

    /// What this process has in memory, in bytes, without the parts of the trees that are or were mapped: these are counted as moved.
    pub(crate) fn resident(&self) -> u64 {
        let status = self.proc_file("self/status").unwrap_or_default();
        kibibytes(&status, b"RssAnon:") + kibibytes(&status, b"RssFile:")
    }

    /// A file of procfs, whole.
    pub(crate) fn proc_file(&self, path: &str) -> Result<Vec<u8>, Fault> {
        let file = openat(&self.proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .on("openat", path.as_bytes())?;
        read_whole(&file, 16 << 20).on("read", path.as_bytes())
    }

    /// A small file of the root, symbolic links resolved inside it; `None` where there is none.
    pub(crate) fn root_file(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, Fault> {
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            opened => {
                let file = opened.on("openat2", path.as_bytes())?;
                read_whole(&file, limit).on("read", path.as_bytes()).map(Some)
            }
        }
    }
}

/// Reads up to `limit` bytes, or fails with EFBIG where there are more.
pub(crate) fn read_whole(file: &OwnedFd, limit: usize) -> Result<Vec<u8>, Errno> {
    let mut text = Vec::new();
    let mut part = vec![0; 4096];
    loop {
        match read(file, &mut part[..]) {
            Ok(0) => return Ok(text),
            Ok(count) if text.len() + count > limit => return Err(Errno::FBIG),
            Ok(count) => text.extend_from_slice(&part[..count]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What kind of file system `/` is, by its magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootFs {
    /// A ramfs: no size, no extended attributes.
    Ramfs,
    /// A tmpfs.
    Tmpfs,
    /// Anything else, with its magic number.
    Other(u64),
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemAvailable`.
    pub available: u64,
}

/// The room of the root's file system; all zero where it has no limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Its size in bytes.
    pub size: u64,
    /// Bytes that are free.
    pub free: u64,
    /// How many inodes it may have.
    pub inodes: u64,
    /// How many are free.
    pub free_inodes: u64,
}

/// Everything that the plan is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether this is process 1.
    pub first: bool,
    /// Whether this process is in the first pid namespace, so that the machine is its own.
    pub machine: bool,
    /// The kind of the root.
    pub rootfs: RootFs,
    /// Whether `/` is the initial root, which the kernel calls `rootfs` whether it is a ramfs or a tmpfs.
    pub initial: bool,
    /// Whether the root mount is on no other, so that `pivot_root` cannot leave it.
    pub absolute: bool,
    /// Whether mounts made below `/` appear elsewhere too.
    pub shared: bool,
    /// All mounts; the root mount is the one with the number [`Facts::root_mount`].
    pub mounts: Vec<Mount>,
    /// The number of the root mount.
    pub root_mount: u64,
    /// The room of the root.
    pub room: Room,
    /// What is in the tree. Counted only where that decides something.
    pub survey: Survey,
    /// Whether all of the initramfs is there.
    pub unpacking: Unpacking,
    /// Whether the root comes as a payload.
    pub payload: Found,
    /// The size of the list of extended attributes that are to be set, in bytes.
    pub manifest: u64,
    /// Whether the old root keeps inode flags.
    pub flags: bool,
    /// Memory.
    pub memory: Memory,
    /// The running kernel's version.
    pub kernel: (u32, u32),
    /// The size of a page in bytes.
    pub page: u64,
    /// How many processors there are.
    pub processors: u32,
    /// Device and inode of this program.
    pub program: Option<((u32, u32), u64)>,
    /// Processes that run other programs.
    pub others: u32,
    /// What might be the init, in the order in which they are to be tried.
    pub candidates: Vec<Candidate>,
    /// `panic=`: what the kernel does when it gives up. Seconds until it restarts; 0 for never, negative for at once.
    pub panic: i32,
}

/// The programs that the kernel itself would try, in its order.
pub const INITS: [&CStr; 4] = [c"/sbin/init", c"/etc/init", c"/bin/init", c"/bin/sh"];
/// A longer configuration file is a mistake.
const CONFIG_LIMIT: usize = 64 * 1024;

/// Reads the configuration. Never fails: what cannot be read becomes a warning.
pub fn options(site: &Site) -> Options {
    let mut warnings = Vec::new();
    let mut warn = |fault: Fault| {
        warnings.push(format!("{}; going on without it", fault.at(Step::Facts)));
        None
    };
    let file = site.root_file("etc/repot.conf", CONFIG_LIMIT).unwrap_or_else(&mut warn);
    let line = site.proc_file("cmdline").map(Some).unwrap_or_else(&mut warn).unwrap_or_default();
    let unread = !warnings.is_empty();
    let mut options = Options::read(file.as_deref(), &cmdline::parse(&line));
    warnings.append(&mut options.warnings);
    options.unread = unread;
    options.warnings = warnings;
    options
}

/// Looks at everything else.
///
/// # Errors
/// The call that failed.
pub fn look(site: &Site, options: &Options) -> Result<Facts, Error> {
    try_look(site, options).map_err(|fault| fault.at(Step::Facts))
}

fn try_look(site: &Site, options: &Options) -> Result<Facts, Fault> {
    let mounts = mountinfo::parse(&site.proc_file("self/mountinfo")?);
    let status = statx(&site.root, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).call("statx")?;
    let root = mounts.iter().find(|mount| mount.id == status.stx_mnt_id).cloned().unwrap_or_default();
    let statfs = fstatfs(&site.old).on("fstatfs", b"/")?;
    let rootfs = kind(statfs.f_type);
    let initial = root.fstype == b"rootfs";
    let processors = sys::processors();
    let unpacking = unpacking::look(site);
    let in_memory = !matches!(rootfs, RootFs::Other(_));
    let payload = if in_memory { payload::look(site) } else { Found::None };
    let may_move = options.mode == Choice::Move || (initial && options.mode == Choice::Auto);
    // Counting is what takes time, and a bind takes none otherwise.
    let count = if in_memory && (may_move || unpacking.end.is_some() || payload != Found::None) {
        survey(site.old.as_fd(), options.threads.unwrap_or(processors).clamp(1, 8))?
    } else {
        Survey::default()
    };
    let flags = in_memory && ioctl_getflags(&site.old).is_ok();
    let block = u64::try_from(statfs.f_bsize).unwrap_or(0);
    let room = Room {
        size: statfs.f_blocks * block,
        free: statfs.f_bfree * block,
        inodes: statfs.f_files,
        free_inodes: statfs.f_ffree,
    };
    // What else runs decides nothing elsewhere.
    let patience = if initial && options.mode == Choice::Auto { PATIENCE } else { 0 };
    let program = program(site);
    let wanted = options.init.iter().map(Vec::as_slice).chain(INITS.map(CStr::to_bytes));
    let machine = Machine::running();
    let test = |path: &[u8]| Candidate {
        path: path.to_vec(),
        why: program::test(site.root.as_fd(), path, program, machine).err(),
    };
    Ok(Facts {
        first: rustix::process::getpid().is_init(),
        machine: readlinkat(&site.proc, "self/ns/pid", Vec::new())
            .is_ok_and(|name| name.as_bytes() == INITIAL_PIDS),
        rootfs,
        initial,
        absolute: root.id == root.parent,
        shared: root.shared,
        root_mount: root.id,
        mounts,
        room,
        survey: count,
        unpacking,
        payload,
        manifest: Meta::read(At::Named(site.old.as_fd(), c".repot-xattrs")).map_or(0, |meta| meta.size),
        flags,
        memory: memory(&site.proc_file("meminfo")?),
        kernel: version(rustix::system::uname().release().to_bytes()),
        page: sys::page_size(),
        processors,
        program,
        others: others(site, patience),
        candidates: wanted.map(test).collect(),
        panic: panic(site),
    })
}

/// The number of the first pid namespace never changes (`PROC_PID_INIT_INO`).
const INITIAL_PIDS: &[u8] = b"pid:[4026531836]";

#[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
fn kind(magic: rustix::fs::FsWord) -> RootFs {
    // The field is a signed 32-bit number on some machines, where ramfs's magic is negative.
    match magic as u64 & 0xffff_ffff {
        0x8584_58f6 => RootFs::Ramfs,
        0x0102_1994 => RootFs::Tmpfs,
        other => RootFs::Other(other),
    }
}

/// The first two numbers of a release such as `6.12.107-1-amd64`.
fn version(release: &[u8]) -> (u32, u32) {
    let mut numbers = release
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| core::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn program(site: &Site) -> Option<((u32, u32), u64)> {
    let path = OFlags::PATH | OFlags::CLOEXEC;
    let file = openat(&site.proc, "self/exe", path, Mode::empty()).ok()?;
    let meta = Meta::read(At::Open(file.as_fd())).ok()?;
    Some((meta.device, meta.inode))
}

fn memory(meminfo: &[u8]) -> Memory {
    Memory { total: kibibytes(meminfo, b"MemTotal:"), available: kibibytes(meminfo, b"MemAvailable:") }
}

/// The number of bytes on the line that begins with `name`, 0 where there is none.
fn kibibytes(text: &[u8], name: &[u8]) -> u64 {
    number(text, name).unwrap_or(0).saturating_mul(1024)
}

/// The number on the line that begins with `name`.
fn number(text: &[u8], name: &[u8]) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    let digits = line.trim_ascii().split(|byte| *byte == b' ').next()?;
    core::str::from_utf8(digits).ok()?.parse().ok()
}

fn panic(site: &Site) -> i32 {
    let text = site.proc_file("sys/kernel/panic").unwrap_or_default();
    core::str::from_utf8(text.trim_ascii()).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How long helpers of the kernel's are waited for, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;

/// Counts the processes that have a program, which kernel threads have not. Helpers that the kernel has started, modprobe above all,
/// come to their end by themselves: they are given so many nanoseconds for that.
fn others(site: &Site, patience: u64) -> u32 {
    let deadline = sys::now() + patience;
    loop {
        let others = programs(site);
        let left = deadline.saturating_sub(sys::now());
        let helper = others.iter().find(|pid| is_helper(site, **pid));
        if left == 0 || helper.is_none_or(|pid| !ends_within(*pid, left)) {
            return u32::try_from(others.len()).unwrap_or(u32::MAX);
        }
    }
}

/// The processes that have a program, this one aside.
fn programs(site: &Site) -> Vec<Pid> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(list) = openat(&site.proc, c".", flags, Mode::empty()).and_then(Dir::new) else {
        return Vec::new();
    };
    let own = rustix::process::getpid();
    let number = |name: &CStr| Pid::from_raw(name.to_str().ok()?.parse().ok()?);
    let runs = |pid: &Pid| readlinkat(&site.proc, format!("{pid}/exe"), Vec::new()).is_ok();
    let numbers = list.filter_map(Result::ok).filter_map(|entry| number(entry.file_name()));
    numbers.filter(|pid| *pid != own).filter(runs).collect()
}

/// Whether a process was started by the kernel: by kthreadd, which is number 2, or by a thread of the kernel's, which kthreadd has
/// started (`call_usermodehelper_exec_work`).
fn is_helper(site: &Site, pid: Pid) -> bool {
    let parent = |pid: u64| {
        let status = site.proc_file(&format!("{pid}/status")).ok()?;
        number(&status, b"PPid:")
    };
    let first = u64::try_from(pid.as_raw_pid()).ok().and_then(parent);
    first == Some(2) || first.filter(|pid| *pid > 2).and_then(parent) == Some(2)
}

/// Waits for the end of a process; `false` where it does not come in so many nanoseconds.
fn ends_within(pid: Pid, nanoseconds: u64) -> bool {
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(error) => return error == Errno::SRCH,
    };
    let limit = i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec: limit / 1_000_000_000, tv_nsec: (limit % 1_000_000_000) as _ };
    poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)).is_ok_and(|ended| ended > 0)
}
