//! The account. Everything is read in such an order that no look changes the next one.

use crate::outside::detached;
use crate::trial;
use repot_probe::account::{Account, Mount, Process, Statfs};
use repot_probe::sys::kernel_log;
use repot_snapshot::text::escape;
use repot_snapshot::{Snapshot, snapshot};
use rustix::fs::{Mode, OFlags, fstat, minor, openat, readlinkat, stat, statfs};
use rustix::mount::{OpenTreeFlags, open_tree};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// A detached procfs.
pub(crate) struct Proc(OwnedFd);

impl Proc {
    pub(crate) fn new() -> Result<Proc, String> {
        detached("proc").map(Proc)
    }

    pub(crate) fn open(&self, path: &str) -> Result<OwnedFd, String> {
        openat(&self.0, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| format!("proc: open {path}: {error}"))
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> Result<(), String> {
        let file = openat(&self.0, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        file.and_then(|file| rustix::io::write(file, text.as_bytes()))
            .map(|_| ())
            .map_err(|error| format!("proc: write {text} to {path}: {error}"))
    }

    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        // In one read, so that all of it is of the same moment.
        let mut bytes = Vec::with_capacity(64 << 10);
        File::from(self.open(path)?)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("proc: read {path}: {error}"))?;
        Ok(bytes)
    }

    pub(crate) fn text(&self, path: &str) -> Result<String, String> {
        // procfs escapes non-ASCII bytes in the files that are read here.
        self.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(crate) fn link(&self, path: &str) -> Result<String, String> {
        readlinkat(&self.0, path, Vec::new())
            .map(|target| escape(target.as_bytes()))
            .map_err(|error| format!("proc: readlink {path}: {error}"))
    }

    /// Merges the counters of each CPU into the global ones, which are wrong by up to 125 pages per CPU until
    /// then (mm/vmstat.c, `calculate_normal_threshold`).
    pub(crate) fn settle(&self) -> Result<(), String> {
        match self.write("sys/vm/stat_refresh", "1") {
            // The kernel merges the counters even if it returns this error for a negative one (until 5.13).
            Err(error) if error.contains("Invalid argument") => Ok(()),
            other => other,
        }
    }

    /// `/proc/meminfo` in KiB.
    pub(crate) fn memory(&self) -> Result<BTreeMap<String, u64>, String> {
        let line = |line: &str| {
            let (key, value) = line.split_once(':')?;
            Some((key.to_owned(), value.split_whitespace().next()?.parse().ok()?))
        };
        Ok(self.text("meminfo")?.lines().filter_map(line).collect())
    }
}

/// Settings that an init may change while memory is short.
const SETTINGS: [&str; 4] =
    ["min_free_kbytes", "lowmem_reserve_ratio", "watermark_boost_factor", "percpu_pagelist_high_fraction"];

fn settings(proc: &Proc) -> BTreeMap<String, String> {
    let words = |name| {
        Some(proc.text(&format!("sys/vm/{name}")).ok()?.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    SETTINGS.iter().filter_map(|name| Some(((*name).to_owned(), words(name)?))).collect()
}

/// Inspects everything.
pub(crate) fn account(argv: &[CString]) -> Result<Account, String> {
    let descriptors = open_descriptors();
    let free_devices = free_devices()?;
    let proc = Proc::new()?;
    proc.settle()?;
    let memory = proc.memory()?;
    let process = process(argv, &proc, &descriptors)?;
    let mounts = proc.text("self/mountinfo")?;
    let statfs = root_statfs()?;
    let tree = tree()?;
    Ok(Account {
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        cmdline: proc.text("cmdline")?.trim_end().to_owned(),
        process,
        statfs,
        mounts: mounts.lines().filter_map(Mount::parse).collect(),
        tree,
        memory,
        settings: settings(&proc),
        swaps: proc.text("swaps").unwrap_or_default(),
        locked_pages: locked_pages(&proc.text("vmstat").unwrap_or_default()),
        log: log()?,
        pivot_root: trial::pivot_root(),
        userns: trial::user_namespace(),
        free_devices,
    })
}

/// The open descriptors below 1024, found before this program opens any.
fn open_descriptors() -> Vec<u32> {
    let open = |number: &u32| {
        let number = i32::try_from(*number).unwrap_or(-1);
        repot_probe::sys::is_open(number)
    };
    (0..1024).filter(open).collect()
}

fn process(argv: &[CString], proc: &Proc, open: &[u32]) -> Result<Process, String> {
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask);
    let descriptors = open
        .iter()
        .map(|number| (*number, proc.link(&format!("self/fd/{number}")).unwrap_or_else(|error| error)));
    let status = proc.text("self/status")?;
    let signals = status
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .filter(|(key, _)| matches!(*key, "SigBlk" | "SigIgn" | "SigCgt"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    Ok(Process {
        pid: std::process::id(),
        argv: argv.iter().map(|word| escape(word.to_bytes())).collect(),
        environ: proc
            .read("self/environ")?
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(escape)
            .collect(),
        cwd: proc.link("self/cwd")?,
        umask: mask.bits(),
        descriptors: descriptors.collect(),
        signals: signals.collect(),
    })
}

fn root_statfs() -> Result<Statfs, String> {
    let seen = statfs("/").map_err(|error| format!("statfs /: {error}"))?;
    // 32 bits, in a field that is signed on some machines.
    let bytes = seen.f_type.to_le_bytes();
    let kind = match u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) {
        0x0102_1994 => "tmpfs".to_owned(),
        0x8584_58f6 => "ramfs".to_owned(),
        other => format!("{other:x}"),
    };
    Ok(Statfs {
        kind,
        block: u64::try_from(seen.f_bsize).unwrap_or(0),
        blocks: seen.f_blocks,
        free: seen.f_bfree,
        inodes: seen.f_files,
        inodes_free: seen.f_ffree,
    })
}

/// The root's tree through a clone of its mount alone, so that mounts on top of it hide nothing.
fn tree() -> Result<Snapshot, String> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let root = open_tree(rustix::fs::CWD, "/", flags).map_err(|error| format!("open_tree /: {error}"))?;
    snapshot(&root).map_err(|error| format!("tree: {error}"))
}

fn log() -> Result<Vec<String>, String> {
    let log = kernel_log().map_err(|error| format!("syslog: {error}"))?;
    let text = String::from_utf8_lossy(&log);
    Ok(text.lines().filter(|line| line.contains("repot: ")).map(str::to_owned).collect())
}

/// New file systems get the lowest free device number. Creates some until their numbers are above the root's.
fn free_devices() -> Result<Vec<u32>, String> {
    let root = stat("/").map_err(|error| format!("stat /: {error}"))?;
    let (mut free, mut held) = (Vec::new(), Vec::new());
    loop {
        let next = detached("tmpfs")?;
        let number = minor(fstat(&next).map_err(|error| format!("stat of a new tmpfs: {error}"))?.st_dev);
        if number > minor(root.st_dev) {
            return Ok(free);
        }
        free.push(number);
        held.push(next);
    }
}

fn locked_pages(vmstat: &str) -> u64 {
    let count = vmstat.lines().find_map(|line| line.strip_prefix("unevictable_pgs_mlocked "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}
