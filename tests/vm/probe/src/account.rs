//! The account: what the probe reports of its machine, one JSON document per line on the second serial port.
//!
//! Byte strings of the system (paths, arguments) are written with [`repot_snapshot::text::escape`], so
//! nothing is lost.

use repot_snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One line of the second serial port.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The machine before the init under test ran, by the step `report`.
    Before(Box<Account>),
    /// The machine at the real init.
    After(Box<Account>),
    /// The probe failed, so the boot proves nothing.
    Broken(String),
}

/// The state of a machine.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// `uname -r`.
    pub release: String,
    /// `/proc/cmdline`.
    pub cmdline: String,
    /// The probe's own process.
    pub process: Process,
    /// `statfs("/")`.
    pub statfs: Statfs,
    /// The lines of `/proc/self/mountinfo`, in order.
    pub mounts: Vec<Mount>,
    /// The tree of the root file system alone, without what is mounted on it.
    #[serde(with = "repot_snapshot::json")]
    pub tree: Snapshot,
    /// `/proc/meminfo` in KiB, read before anything else.
    pub memory: BTreeMap<String, u64>,
    /// Files below `/proc/sys/vm` that an init may change, as far as the kernel has them.
    pub settings: BTreeMap<String, String>,
    /// `/proc/swaps`, as far as the kernel has it.
    #[serde(default)]
    pub swaps: String,
    /// Pages that were ever locked in memory (`unevictable_pgs_mlocked` of `/proc/vmstat`).
    #[serde(default)]
    pub locked_pages: u64,
    /// repot's lines of the kernel log.
    pub log: Vec<String>,
    /// "ok" if a child in its own mount namespace can do what runc does, or the call that failed.
    pub pivot_root: String,
    /// `unshare(CLONE_NEWUSER)` in a child: "ok", or the error.
    pub userns: String,
    /// Anonymous device numbers below the root's that no file system has. The old root's number is one of
    /// them exactly if its superblock is gone.
    pub free_devices: Vec<u32>,
}

/// The process of the probe, as the init under test executed it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Must be 1.
    pub pid: u32,
    /// Arguments, the program name included.
    pub argv: Vec<String>,
    /// Environment, in order.
    pub environ: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// File mode creation mask.
    pub umask: u32,
    /// Open descriptors and their targets in `/proc/self/fd`.
    pub descriptors: BTreeMap<u32, String>,
    /// `SigBlk`, `SigIgn` and `SigCgt` of `/proc/self/status`.
    pub signals: BTreeMap<String, String>,
}

/// `statfs("/")`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statfs {
    /// "tmpfs", "ramfs" or the magic in hexadecimal.
    pub kind: String,
    /// Block size in bytes.
    pub block: u64,
    /// Number of blocks, 0 for no limit.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Number of inodes, 0 for no limit.
    pub inodes: u64,
    /// Free inodes.
    pub inodes_free: u64,
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Mount id.
    pub id: u32,
    /// Id of the parent mount.
    pub parent: u32,
    /// Device, as `major:minor`.
    pub device: String,
    /// The directory of the file system that is mounted.
    pub root: String,
    /// Mount point.
    pub point: String,
    /// Options of the mount.
    pub options: String,
    /// Its propagation: `shared`, `master` or `unbindable`, or several, without the numbers of peer groups.
    pub propagation: String,
    /// File system type.
    pub kind: String,
    /// Source.
    pub source: String,
    /// Options of the file system.
    pub super_options: String,
}

impl Mount {
    /// Parses one line of mountinfo.
    pub fn parse(line: &str) -> Option<Mount> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        Some(Mount {
            id: left.first()?.parse().ok()?,
            parent: left.get(1)?.parse().ok()?,
            device: (*left.get(2)?).to_owned(),
            root: (*left.get(3)?).to_owned(),
            point: (*left.get(4)?).to_owned(),
            options: (*left.get(5)?).to_owned(),
            propagation: left
                .get(6..)?
                .iter()
                .map(|tag| tag.split(':').next().unwrap_or_default())
                .collect::<Vec<_>>()
                .join(","),
            kind: (*right.first()?).to_owned(),
            source: (*right.get(1)?).to_owned(),
            super_options: right.get(2).map_or(String::new(), |options| (*options).to_owned()),
        })
    }
}
