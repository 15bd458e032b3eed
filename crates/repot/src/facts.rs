//! Inspects the system and changes nothing: the type of `/`, its mounts, its tree, memory, and the executable
//! inits.

mod configuration;
mod dependents;
mod kernel_programs;
pub mod loops;
pub mod mountinfo;
#[cfg(feature = "payload")]
mod outside;
pub mod packed;
pub(crate) mod processes;
pub mod program;
pub mod unpacked;

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Mode, OFlags, StatFs, StatxFlags, fstatfs, ioctl_getflags, openat, statx};

use crate::error::{Call, Error, Fault, Step, retry_once};
use crate::manifest;
use crate::metadata::{At, Meta};
use crate::options::{Mode as Choice, Options};
use crate::site::{Site, find, kibibytes};
use crate::streams::{self, Stream};
use crate::sys;
use crate::walk::survey::{Survey, survey};
use crate::zram;
pub use configuration::options;
pub(crate) use configuration::options_in_place;
use mountinfo::{Device, Mount};
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
    /// `HighTotal`, the part of `total` that a 32-bit kernel does not map; 0 elsewhere.
    pub high: u64,
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
    /// Whether `/` is the initial root of this machine, which has the type `rootfs` in mountinfo, be it a
    /// ramfs or a tmpfs. The root of a container may be a bind mount of a directory in it.
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
    /// The first entries beside the payload that a digest does not cover, if one is set.
    pub outside: Vec<String>,
    /// The attribute manifests (`.repot-xattrs`, `.repot-xattrs-*`) in the order of their segments.
    pub manifests: Vec<CString>,
    /// Their size in bytes.
    pub manifest: u64,
    /// Whether the old root keeps inode flags.
    pub flags: bool,
    /// Memory.
    pub memory: Memory,
    /// How many descriptors may be open.
    pub descriptors: u64,
    /// Whether swap in compressed memory can be made.
    pub zram: zram::Support,
    /// The version of the running kernel.
    pub kernel: (u32, u32),
    /// The size of a page, in bytes.
    pub page: u64,
    /// The number of CPUs.
    pub cpus: u32,
    /// Device and inode of this program.
    pub program: Option<((u32, u32), u64)>,
    /// The memory of the programs of the other processes, in bytes.
    pub programs: u64,
    /// Inode numbers of the programs that the kernel starts, and of what these read. They move last.
    pub kernel_programs: Vec<u64>,
    /// The other processes of user space, as `NAME[PID]`.
    pub others: Vec<String>,
    /// What depends on files of the old root, in a clause each: mounts and loop devices, but no bind mounts
    /// of the root itself.
    pub dependents: Vec<String>,
    /// The IDs of bind mounts of the root whose directory or file is not in its tree any more.
    pub lost: Vec<u64>,
    /// Standard streams that are files of the old root.
    pub streams: Vec<Stream>,
    /// The inits to try, in order.
    pub candidates: Vec<Candidate>,
    /// What could not be inspected, if anything; its facts are the defaults.
    pub unseen: Option<String>,
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
            outside: Vec::new(),
            manifests: Vec::new(),
            manifest: 0,
            flags: false,
            memory: Memory::default(),
            descriptors: 1024,
            zram: zram::Support::default(),
            kernel: (0, 0),
            page: 4096,
            cpus: 1,
            program: None,
            programs: 0,
            kernel_programs: Vec::new(),
            others: Vec::new(),
            dependents: Vec::new(),
            lost: Vec::new(),
            streams: Vec::new(),
            candidates: Vec::new(),
            unseen: None,
        }
    }
}

/// The inits that the kernel tries, in its order.
pub const INITS: [&CStr; 4] = [c"/sbin/init", c"/etc/init", c"/bin/init", c"/bin/sh"];

/// The inits to try, in order, before any of them is tested.
pub(crate) fn wanted(options: &Options) -> impl Iterator<Item = &[u8]> {
    options.chain.iter().chain(&options.init).map(Vec::as_slice).chain(INITS.map(CStr::to_bytes))
}

/// Inspects everything except the configuration.
///
/// # Errors
/// The call that failed, if the root is a payload. Otherwise [`Facts::unseen`] says what could not be
/// inspected.
pub fn look(site: &Site, options: &Options) -> Result<Facts, Error> {
    try_look(site, options).map_err(|fault| fault.at(Step::Facts))
}

fn try_look(site: &Site, options: &Options) -> Result<Facts, Fault> {
    let mut doubts = Doubts(None);
    let status = statx(&site.root, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).call("statx");
    let status = doubts.note(status);
    let (root_mount, device) = status.as_ref().map_or((0, Device::default()), |status| {
        (status.stx_mnt_id, Device { major: status.stx_dev_major, minor: status.stx_dev_minor })
    });
    let mountinfo = doubts.note(site.proc_file("self/mountinfo"));
    let mounts = mountinfo.as_deref().map(mountinfo::parse).unwrap_or_default();
    let root = mounts.iter().find(|mount| mount.id == root_mount).cloned();
    let parentless = root.as_ref().is_some_and(|root| root.id == root.parent);
    let root = root.unwrap_or_default();
    let statfs = doubts.note(fstatfs(&site.old).on("fstatfs", b"/"));
    let rootfs = statfs.as_ref().map_or(RootFs::Other(0), |statfs| kind(statfs.f_type));
    let in_memory = !matches!(rootfs, RootFs::Other(_));
    let machine = site.machine();
    let initial = is_initial(&root, &mounts) && machine;
    let cpus = sys::cpus();
    let unpacking = unpacked::look(site);
    let payload = if in_memory || statfs.is_none() { packed::look(site) } else { Found::None };
    let may_move = in_memory && (options.mode == Choice::Move || (initial && options.mode == Choice::Auto));
    // The survey takes nearly all the time, so it is skipped if the plan does not need it.
    let counts = in_memory && (may_move || payload != Found::None);
    let surveyed = counts
        .then(|| survey(site.old.as_fd(), options.threads.unwrap_or(cpus).clamp(1, 8)))
        .and_then(|surveyed| doubts.note(surveyed));
    // If nothing can move, it does not matter what else uses the root.
    let (mut dependents, mut lost, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    let (mut kernel_programs, mut max_wait) = Default::default();
    if may_move {
        dependents = dependents::dependents(&root, device, &mounts, &loops::loops());
        lost = self::lost(site, &root, &mounts);
        streams = streams::look(site, device);
        kernel_programs = kernel_programs::kernel_programs(site);
        max_wait = processes::MAX_WAIT;
    }
    let meminfo = doubts.note(site.proc_file("meminfo")).unwrap_or_default();
    let program = program(site);
    let outside = doubts.note(outside(site, options, &payload, program)).unwrap_or_default();
    let manifests = manifests(site);
    let manifests = if in_memory { doubts.note(manifests) } else { manifests.ok() };
    let (manifests, manifest) = manifests.unwrap_or_default();
    let candidates = candidates(site, options, program);
    // Last, because others may start at any time.
    let others = processes::others(site, max_wait);
    let unseen = match doubts.0 {
        // What is beside a payload is no system.
        Some(fault) if payload != Found::None => return Err(fault),
        fault => fault.map(|fault| format!("{}", fault.at(Step::Facts))),
    };
    Ok(Facts {
        first: rustix::process::getpid().is_init(),
        machine,
        rootfs,
        initial,
        parentless,
        shared: root.group != 0,
        root_mount: root.id,
        mounts,
        capacity: statfs.as_ref().map(capacity).unwrap_or_default(),
        survey: surveyed.unwrap_or_default(),
        unpacking,
        payload,
        outside,
        manifests,
        manifest,
        flags: in_memory && ioctl_getflags(&site.old).is_ok(),
        memory: memory(&meminfo),
        descriptors: sys::descriptors(),
        zram: zram::look(site, options),
        kernel: version(rustix::system::uname().release().to_bytes()),
        page: sys::page_size(),
        cpus,
        program,
        programs: processes::programs(site, &others),
        kernel_programs,
        others,
        dependents,
        lost,
        streams,
        candidates,
        unseen,
    })
}

/// Looks beside a payload only if the configuration asks for it.
fn outside(
    site: &Site,
    options: &Options,
    payload: &Found,
    program: Option<((u32, u32), u64)>,
) -> Result<Vec<String>, Fault> {
    match payload {
        #[cfg(feature = "payload")]
        Found::Index(index, _) if !options.payload.is_empty() && !options.payload_overlay => {
            outside::look(site, program, &index.modules)
        }
        _ => {
            let _ = (site, options, program);
            Ok(Vec::new())
        }
    }
}

/// The IDs of bind mounts of the root whose directory or file is not in the tree any more.
fn lost(site: &Site, root: &Mount, mounts: &[Mount]) -> Vec<u64> {
    let is_lost = |mount: &&Mount| {
        mount.id != root.id
            && mount.device == root.device
            && (mount.root.ends_with(b"//deleted") || find(site.old.as_fd(), &mount.root).is_err())
    };
    mounts.iter().filter(is_lost).map(|mount| mount.id).collect()
}

/// The first thing that could not be inspected. The root is not moved then, but the init that the user wants
/// still runs.
struct Doubts(Option<Fault>);

impl Doubts {
    fn note<T>(&mut self, looked: Result<T, Fault>) -> Option<T> {
        looked.map_err(|fault| _ = self.0.get_or_insert(fault)).ok()
    }
}

fn candidates(site: &Site, options: &Options, running: Option<((u32, u32), u64)>) -> Vec<Candidate> {
    let machine = Machine::running();
    let test = |path: &[u8]| Candidate {
        path: path.to_vec(),
        why: program::test(&site.root.as_fd(), path, running, machine).err(),
    };
    let mut candidates: Vec<_> = wanted(options).map(test).collect();
    if options.chain.is_some() && candidates.first().is_some_and(|chain| chain.why.is_some()) {
        // An earlier run of repot has given the image's own init its name back.
        candidates.insert(1, test(b"/init"));
    }
    candidates
}

/// The attribute manifests. Retried once: a root without its capabilities may not work.
fn manifests(site: &Site) -> Result<(Vec<CString>, u64), Fault> {
    retry_once(|| manifest::list(site.old.as_fd())).on("getdents64", b"/")
}

/// Whether the mount at `/` is the initial root: its file system is, as a whole, and no other mount that this
/// process can see is above it. It is its own parent; from 7.0 on its parent is the nullfs, which mountinfo
/// does not list.
fn is_initial(root: &Mount, mounts: &[Mount]) -> bool {
    let has_parent = root.parent != root.id && mounts.iter().any(|mount| mount.id == root.parent);
    root.fstype == b"rootfs" && root.root == b"/" && !has_parent
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
    let field = |name| kibibytes(meminfo, name);
    Memory { total: field(b"MemTotal:"), available: field(b"MemAvailable:"), high: field(b"HighTotal:") }
}
