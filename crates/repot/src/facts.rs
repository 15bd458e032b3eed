//! Inspects the system and changes nothing: the type of `/`, its mounts, its tree, memory, and the executable
//! inits.

pub mod mountinfo;
pub mod packed;
mod processes;
pub mod program;
pub mod unpacked;

use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Mode, OFlags, StatFs, StatxFlags, fstatfs, ioctl_getflags, openat, statx};

use crate::error::{Call, Error, Fault, Step};
use crate::metadata::{At, Meta};
use crate::options::{Mode as Choice, Options, cmdline};
use crate::site::{Site, kibibytes};
use crate::sys;
use crate::walk::survey::{Survey, survey};
use mountinfo::Mount;
use packed::Found;
use program::{Candidate, Machine};
use unpacked::Unpacking;

/// The type of the file system at `/`, by its magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootFs {
    /// A ramfs: no size limit, no extended attributes.
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

/// The limits of the root's file system; all zero if it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Its size in bytes.
    pub size: u64,
    /// Free bytes.
    pub free: u64,
    /// The number of inodes it may have.
    pub inodes: u64,
    /// Free inodes.
    pub free_inodes: u64,
}

/// The input of the plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Facts {
    /// Whether this is PID 1.
    pub first: bool,
    /// Whether this process is in the initial PID namespace, so that the kernel's log and sysctls are ours to
    /// use.
    pub machine: bool,
    /// The type of the root.
    pub rootfs: RootFs,
    /// Whether `/` is the initial root, which has the type `rootfs` in mountinfo, be it a ramfs or a tmpfs.
    pub initial: bool,
    /// Whether the root mount has no parent; `pivot_root` fails with EINVAL then.
    pub parentless: bool,
    /// Whether the root mount is shared: mounts made below `/` propagate to its peers.
    pub shared: bool,
    /// All mounts. The root mount is the one with the ID [`Facts::root_mount`].
    pub mounts: Vec<Mount>,
    /// The ID of the root mount.
    pub root_mount: u64,
    /// The limits of the root.
    pub capacity: Capacity,
    /// The contents of the tree. Counted only if the plan needs them.
    pub survey: Survey,
    /// Evidence of whether the kernel unpacked the whole initramfs.
    pub unpacking: Unpacking,
    /// The payload, if the image has one.
    pub payload: Found,
    /// The size of the attribute manifest (`.repot-xattrs`), in bytes.
    pub manifest: u64,
    /// Whether the old root keeps inode flags.
    pub flags: bool,
    /// Memory.
    pub memory: Memory,
    /// The version of the running kernel.
    pub kernel: (u32, u32),
    /// The size of a page, in bytes.
    pub page: u64,
    /// The number of CPUs.
    pub cpus: u32,
    /// Device and inode of this program.
    pub program: Option<((u32, u32), u64)>,
    /// The number of other processes that run a program; kernel threads do not count.
    pub others: u32,
    /// The inits to try, in order.
    pub candidates: Vec<Candidate>,
}

impl Default for Facts {
    /// PID 1 on a file system of unknown type, with no memory. The plan is to stay.
    fn default() -> Self {
        Facts {
            first: true,
            machine: true,
            rootfs: RootFs::Other(0),
            initial: false,
            parentless: false,
            shared: false,
            mounts: Vec::new(),
            root_mount: 0,
            capacity: Capacity::default(),
            survey: Survey::default(),
            unpacking: Unpacking::default(),
            payload: Found::None,
            manifest: 0,
            flags: false,
            memory: Memory::default(),
            kernel: (0, 0),
            page: 4096,
            cpus: 1,
            program: None,
            others: 0,
            candidates: Vec::new(),
        }
    }
}

/// The inits that the kernel tries, in its order.
pub const INITS: [&CStr; 4] = [c"/sbin/init", c"/etc/init", c"/bin/init", c"/bin/sh"];
/// The maximum size of the configuration file, in bytes.
const CONFIG_LIMIT: usize = 64 * 1024;

/// Reads the configuration and `panic=`. Never fails: a source that cannot be read becomes a warning.
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
    options.panic = panic(site);
    options
}

fn panic(site: &Site) -> i32 {
    let text = site.proc_file("sys/kernel/panic").unwrap_or_default();
    core::str::from_utf8(text.trim_ascii()).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Inspects everything except the configuration.
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
    let in_memory = !matches!(rootfs, RootFs::Other(_));
    let initial = root.fstype == b"rootfs";
    let cpus = sys::cpus();
    let unpacking = unpacked::look(site);
    let payload = if in_memory { packed::look(site) } else { Found::None };
    let may_move = options.mode == Choice::Move || (initial && options.mode == Choice::Auto);
    // The survey takes nearly all the time, so it is skipped if the plan does not need it.
    let counts = in_memory && (may_move || unpacking.end.is_some() || payload != Found::None);
    let survey = if counts {
        survey(site.old.as_fd(), options.threads.unwrap_or(cpus).clamp(1, 8))?
    } else {
        Survey::default()
    };
    // In other cases the plan does not depend on other processes.
    let max_wait = if initial && options.mode == Choice::Auto { processes::MAX_WAIT } else { 0 };
    let program = program(site);
    Ok(Facts {
        first: rustix::process::getpid().is_init(),
        machine: site.machine(),
        rootfs,
        initial,
        parentless: root.id == root.parent,
        shared: root.shared,
        root_mount: root.id,
        mounts,
        capacity: capacity(&statfs),
        survey,
        unpacking,
        payload,
        manifest: Meta::read(At::Named(site.old.as_fd(), c".repot-xattrs")).map_or(0, |meta| meta.size),
        flags: in_memory && ioctl_getflags(&site.old).is_ok(),
        memory: memory(&site.proc_file("meminfo")?),
        kernel: version(rustix::system::uname().release().to_bytes()),
        page: sys::page_size(),
        cpus,
        program,
        others: processes::others(site, max_wait),
        candidates: candidates(site, options, program),
    })
}

fn candidates(site: &Site, options: &Options, running: Option<((u32, u32), u64)>) -> Vec<Candidate> {
    let machine = Machine::running();
    let test = |path: &[u8]| Candidate {
        path: path.to_vec(),
        why: program::test(&site.root.as_fd(), path, running, machine).err(),
    };
    options.init.iter().map(Vec::as_slice).chain(INITS.map(CStr::to_bytes)).map(test).collect()
}

fn capacity(statfs: &StatFs) -> Capacity {
    let block = u64::try_from(statfs.f_bsize).unwrap_or(0);
    Capacity {
        size: statfs.f_blocks * block,
        free: statfs.f_bfree * block,
        inodes: statfs.f_files,
        free_inodes: statfs.f_ffree,
    }
}

#[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
fn kind(magic: rustix::fs::FsWord) -> RootFs {
    // On some architectures the field is a signed 32-bit integer, in which the magic number of ramfs is
    // negative.
    match magic as u64 & 0xffff_ffff {
        0x8584_58f6 => RootFs::Ramfs,
        0x0102_1994 => RootFs::Tmpfs,
        other => RootFs::Other(other),
    }
}

/// The first two numbers of a kernel release such as `6.12.107-1-amd64`.
fn version(release: &[u8]) -> (u32, u32) {
    let mut numbers = release
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| core::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Device and inode of this program.
fn program(site: &Site) -> Option<((u32, u32), u64)> {
    let path = OFlags::PATH | OFlags::CLOEXEC;
    let file = openat(&site.proc, "self/exe", path, Mode::empty()).ok()?;
    let meta = Meta::read(At::Open(file.as_fd())).ok()?;
    Some((meta.device, meta.inode))
}

fn memory(meminfo: &[u8]) -> Memory {
    Memory { total: kibibytes(meminfo, b"MemTotal:"), available: kibibytes(meminfo, b"MemAvailable:") }
}
