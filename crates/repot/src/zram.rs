//! Makes swap in compressed memory (zram), so that a tmpfs root costs less than its size while memory is
//! short. The real init finds it as ordinary swap.
//!
//! Input: the plan's [`Wanted`]. Output: a device in use as swap. Every device is a new one: `zram0` and
//! all others stay as they are, for whoever configures them.

mod header;
mod ratio;

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, fsync};
use rustix::fs::{FileType, Mode, OFlags, makedev, mkdirat, mknodat, openat, readlinkat, statat};
use rustix::io::{Errno, pwrite};
use rustix::process::{chdir, fchdir};

use crate::display::Bytes;
use crate::error::{Call, Fault, What};
use crate::facts::Facts;
use crate::modules;
use crate::options::{self, Options};
use crate::plan::{Plan, Refusal};
use crate::site::{Site, detached, read_whole};
use crate::sys;

pub use ratio::thousandths;

/// The driver, as a module and in the image.
pub const DRIVER: &str = "zram";

/// Whether a device can be made. Part of the facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Support {
    /// `zram=` does not ask for one.
    #[default]
    Unasked,
    /// As far as can be seen without changing anything.
    Possible,
    /// The device exists, and compresses with this algorithm.
    Made(Algorithm),
    /// Why not, as a clause.
    Missing(String),
}

/// An algorithm, as far as the plan knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// zstd, or another that is at least as strong.
    Zstd,
    /// Any other: lz4 is the weakest in use.
    Other,
}

impl Algorithm {
    /// By its name in `comp_algorithm`.
    pub fn named(name: &[u8]) -> Algorithm {
        match name {
            b"zstd" | b"deflate" => Algorithm::Zstd,
            _ => Algorithm::Other,
        }
    }
}

/// The device that the plan wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What it may hold, uncompressed, in bytes.
    pub size: u64,
    /// `zram.algorithm=`; `None` for the best that the driver offers.
    pub algorithm: Option<String>,
    /// What it may take, compressed, in bytes; `None` for no limit.
    pub limit: Option<u64>,
}

/// Algorithms in the order of preference, by measurement (docs/zram.md).
const PREFERRED: [&[u8]; 4] = [b"zstd", b"lz4", b"lzo-rle", b"lzo"];

/// The inode number of the initial user namespace, which never changes (`PROC_USER_INIT_INO`).
const INITIAL_USERNS: &[u8] = b"user:[4026531837]";

/// Whether a device can be made. Changes nothing.
pub(crate) fn look(site: &Site, options: &Options) -> Support {
    if options.zram == options::Zram::No {
        return Support::Unasked;
    }
    if !is_machine(site) {
        return Support::Missing(String::from("this is a container, and swap belongs to the whole machine"));
    }
    let found = site.proc_file("swaps").and_then(|swaps| {
        let sysfs = detached("sysfs")?;
        if !is_loaded(&sysfs) {
            modules::find(site.old.as_fd(), DRIVER)?;
        }
        Ok(swaps.windows(5).any(|part| part == b"/zram"))
    });
    match found {
        Ok(false) => Support::Possible,
        Ok(true) => Support::Missing(String::from("a zram device is in use as swap already")),
        Err(fault) => missing(&fault),
    }
}

fn missing(fault: &Fault) -> Support {
    let swap = if fault.path == b"swaps" { "; this kernel has no swap (CONFIG_SWAP)" } else { "" };
    Support::Missing(format!("{fault}{}{swap}", modules::cure(fault)))
}

/// Whether this process is in the initial PID and user namespaces.
fn is_machine(site: &Site) -> bool {
    site.machine()
        && match readlinkat(&site.proc, "self/ns/user", Vec::new()) {
            Ok(name) => name.as_bytes() == INITIAL_USERNS,
            // A kernel without CONFIG_USER_NS has no other namespace.
            Err(errno) => errno == Errno::NOENT,
        }
}

/// Makes the device that the plan wants. Whatever the plan took for granted and is not so changes the plan.
///
/// # Errors
/// The refusal of the new plan. The device is gone then.
pub(crate) fn provide(
    site: &Site,
    options: &Options,
    facts: &mut Facts,
    plan: &mut Plan,
) -> Result<Option<Device>, Refusal> {
    let Some(wanted) = &plan.zram else { return Ok(None) };
    let device = match make(site, wanted, facts.page) {
        Ok(device) => {
            facts.zram = Support::Made(device.algorithm());
            Some(device)
        }
        Err(fault) => {
            facts.zram = missing(&fault);
            None
        }
    };
    // Its own memory is in use now, and a plan that counts it twice refuses nothing that fits.
    match crate::plan::plan(facts, options) {
        Ok(next) => *plan = next,
        Err(refusal) => {
            if let Some(device) = device {
                device.remove();
            }
            return Err(refusal);
        }
    }
    Ok(device)
}

/// A device in use as swap.
#[derive(Debug)]
pub(crate) struct Device {
    sysfs: OwnedFd,
    number: u64,
    algorithm: Vec<u8>,
    size: u64,
}

/// Makes the device of the plan.
///
/// # Errors
/// The call that failed. No device is left behind then; modules that were loaded stay.
fn make(site: &Site, wanted: &Wanted, page: u64) -> Result<Device, Fault> {
    let sysfs = detached("sysfs")?;
    if !is_loaded(&sysfs) {
        modules::load(site.old.as_fd(), &sysfs, DRIVER)?;
    }
    // Reading this file makes a device, and gives its number.
    let number = read(&sysfs, "class/zram-control/hot_add")?;
    let number = crate::site::number(&number, b"").ok_or_else(|| flaw("no number of a device"))?;
    let size = wanted.size.next_multiple_of(page.max(1));
    let mut device = Device { sysfs, number, algorithm: Vec::new(), size };
    match device.start(site, wanted, page) {
        Ok(()) => Ok(device),
        Err(fault) => {
            device.remove();
            Err(fault)
        }
    }
}

impl Device {
    /// How it compresses.
    pub(crate) fn algorithm(&self) -> Algorithm {
        Algorithm::named(&self.algorithm)
    }

    /// Takes it out of use and removes it.
    pub(crate) fn remove(self) {
        // Each fails where there is nothing to do.
        if let Ok(node) = self.node() {
            let path = self.path();
            let _ = in_directory(&node, || sys::swapoff(&path).call("swapoff"));
        }
        let _ = self.set("reset", b"1");
        let _ = write(&self.sysfs, "class/zram-control/hot_remove", format!("{}", self.number).as_bytes());
    }

    fn start(&mut self, site: &Site, wanted: &Wanted, page: u64) -> Result<(), Fault> {
        self.algorithm = match &wanted.algorithm {
            // The driver may know more than it lists, before 6.12.
            Some(name) => name.as_bytes().to_vec(),
            None => self.best()?,
        };
        self.set("comp_algorithm", &self.algorithm)?;
        if let Some(limit) = wanted.limit {
            self.set("mem_limit", format!("{limit}").as_bytes())?;
        }
        self.set("disksize", format!("{}", self.size).as_bytes())?;
        let uuid = site.proc_file("sys/kernel/random/uuid").unwrap_or_default();
        self.swap_on(&header::header(page, self.size / page.max(1), &header::uuid(&uuid)))
    }

    /// The best algorithm that the driver offers: a list, in which the one in brackets is set.
    fn best(&self) -> Result<Vec<u8>, Fault> {
        let offered = self.get("comp_algorithm")?;
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let offers = |name: &&&[u8]| offered.split(|byte| !plain(byte)).any(|one| one == **name);
        let best = PREFERRED.iter().find(offers).map(|name| name.to_vec());
        best.ok_or_else(|| {
            flaw("no algorithm that repot knows; zram.algorithm= names another:").on(offered.clone())
        })
    }

    fn swap_on(&self, header: &[u8]) -> Result<(), Fault> {
        let (node, path) = (self.node()?, self.path());
        let on = path.to_bytes();
        let file = openat(&node, &*path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).on("openat", on)?;
        if pwrite(&file, header, 0).on("pwrite64", on)? != header.len() {
            return Err(Errno::IO).on("pwrite64", on);
        }
        fsync(&file).on("fsync", on)?;
        drop(file);
        in_directory(&node, || sys::swapon(&path).on("swapon", on))
    }

    /// Its node, in a detached tmpfs: `/proc/swaps` shows the path below its root, which is the one that the
    /// node will have in the `/dev` of the real init.
    fn node(&self) -> Result<OwnedFd, Fault> {
        let numbers = self.get("dev")?;
        let minor = numbers.iter().position(|byte| *byte == b':').map_or(&[][..], |at| &numbers[at + 1..]);
        // `number` reads as far as there are digits and a blank.
        let major = &numbers[..numbers.len() - minor.len()];
        let major = major.strip_suffix(b":").and_then(|major| crate::site::number(major, b""));
        let (Some(major), Some(minor)) = (major, crate::site::number(minor, b"")) else {
            return Err(flaw("no device number"));
        };
        let device = makedev(u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0));
        let (place, path) = (detached("tmpfs")?, self.path());
        mkdirat(&place, c"dev", Mode::RWXU).on("mkdirat", b"dev")?;
        mknodat(&place, &*path, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device)
            .on("mknodat", path.to_bytes())?;
        Ok(place)
    }

    fn path(&self) -> CString {
        CString::new(format!("dev/zram{}", self.number)).unwrap_or_default()
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, Fault> {
        read(&self.sysfs, &format!("block/zram{}/{name}", self.number))
    }

    fn set(&self, name: &str, value: &[u8]) -> Result<(), Fault> {
        write(&self.sysfs, &format!("block/zram{}/{name}", self.number), value)
    }
}

impl fmt::Display for Device {
    /// What it is, and what it holds now.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, size) = (self.algorithm.escape_ascii(), Bytes(self.size));
        write!(f, "zram: swap of {size} on /dev/zram{} ({name})", self.number)?;
        // What it holds, that compressed, and with the allocator's overhead: columns of a table.
        let stat = self.get("mm_stat").unwrap_or_default();
        let mut columns = stat.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let mut column = |skipped| crate::site::number(columns.nth(skipped)?, b"").map(Bytes);
        match (column(0), column(1)) {
            (Some(holds), Some(takes)) => write!(f, ", holds {holds} in {takes}"),
            _ => Ok(()),
        }
    }
}

fn flaw(what: &'static str) -> Fault {
    Fault { what: What::Flaw(what), path: Vec::new(), errno: Errno::BADMSG }
}

fn is_loaded(sysfs: &OwnedFd) -> bool {
    statat(sysfs, c"class/zram-control", AtFlags::empty()).is_ok()
}

/// Calls `work` with `dir` as the working directory: swapon(2) takes a path alone. Then it is `/` again.
fn in_directory(dir: &OwnedFd, work: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
    fchdir(dir).call("fchdir")?;
    let done = work();
    let left = crate::error::retry_once(|| chdir("/")).on("chdir", b"/");
    done.and(left)
}

fn read(sysfs: &OwnedFd, path: &str) -> Result<Vec<u8>, Fault> {
    read_whole(&open(sysfs, path, OFlags::RDONLY)?, 4096).on("read", path.as_bytes())
}

fn write(sysfs: &OwnedFd, path: &str, value: &[u8]) -> Result<(), Fault> {
    let file = open(sysfs, path, OFlags::WRONLY)?;
    rustix::io::write(&file, value).on("write", path.as_bytes()).map(drop)
}

fn open(sysfs: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Fault> {
    openat(sysfs, path, flags | OFlags::CLOEXEC, Mode::empty()).on("openat", path.as_bytes())
}
