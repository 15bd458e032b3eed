//! The account a probe gives of the machine it woke up in: one JSON document a line on the second serial port.
//!
//! Byte strings of the system (paths, arguments) are written with [`crate::escape`], so nothing is lost or guessed.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One line of the second serial port.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What a step before the init under test saw.
    Before(Box<Account>),
    /// What the real init saw.
    After(Box<Account>),
    /// The probe could not do what was asked of it; the boot proves nothing.
    Broken(String),
}

/// The state of a machine.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// `uname -r`.
    pub release: String,
    /// `/proc/cmdline`.
    pub cmdline: String,
    /// The process the account was given by.
    pub process: Process,
    /// `statfs("/")`.
    pub statfs: Statfs,
    /// The lines of `/proc/self/mountinfo`, in order.
    pub mounts: Vec<Mount>,
    /// The tree of the root file system alone, mount points seen through, sorted by path.
    pub entries: Vec<Entry>,
    /// SHA-256 over the entries.
    pub digest: String,
    /// `/proc/meminfo` in KiB, read before anything else was.
    pub memory: BTreeMap<String, u64>,
    /// What is set below `/proc/sys/vm` for the memory that the kernel keeps for itself, where it has such a setting.
    pub settings: BTreeMap<String, String>,
    /// repot's lines of the kernel log.
    pub log: Vec<String>,
    /// A child in a namespace of its own does what runc does: "ok", or the call that failed.
    pub pivot_root: String,
    /// `unshare(CLONE_NEWUSER)` in a child: "ok", or the error.
    pub userns: String,
    /// Anonymous device numbers below the root's that no file system holds: the old root's is among
    /// them exactly when its superblock is gone.
    pub free_devices: Vec<u32>,
    /// What the sampler saw while the init under test ran, if a step started one.
    pub peak: Option<Peak>,
}

/// The process that gives the account, as it was handed its life.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// 1, or something is very wrong.
    pub pid: u32,
    /// Arguments, the first included.
    pub argv: Vec<String>,
    /// Environment, in order.
    pub environ: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// File mode creation mask.
    pub umask: u32,
    /// Open descriptors and what `/proc/self/fd` says of them.
    pub descriptors: BTreeMap<u32, String>,
    /// `SigBlk`, `SigIgn` and `SigCgt` of `/proc/self/status`.
    pub signals: BTreeMap<String, String>,
}

/// `statfs("/")`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statfs {
    /// "tmpfs", "ramfs" or the magic in hexadecimal.
    pub kind: String,
    /// Size of a block.
    pub block: u64,
    /// Blocks in all; 0 for no limit.
    pub blocks: u64,
    /// Blocks free.
    pub free: u64,
    /// Inodes in all; 0 for no limit.
    pub inodes: u64,
    /// Inodes free.
    pub inodes_free: u64,
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Mount id.
    pub id: u32,
    /// Id of the mount it stands on.
    pub parent: u32,
    /// Device, as `major:minor`.
    pub device: String,
    /// What of the file system is mounted.
    pub root: String,
    /// Where.
    pub point: String,
    /// Options of the mount.
    pub options: String,
    /// File system type.
    pub kind: String,
    /// Source.
    pub source: String,
    /// Options of the file system.
    pub super_options: String,
}

impl Mount {
    /// Reads one line of mountinfo.
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
            kind: (*right.first()?).to_owned(),
            source: (*right.get(1)?).to_owned(),
            super_options: right.get(2).map_or(String::new(), |options| (*options).to_owned()),
        })
    }
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Character,
    Block,
    Fifo,
    Socket,
    Unknown,
}

/// Seconds and nanoseconds since the epoch.
pub type Time = (i64, u32);

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path from the root, without a slash in front; empty for the root itself.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of links.
    pub nlink: u32,
    /// The first path (in the list's order) of the same inode, for the other links to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_to: Option<String>,
    /// Length.
    pub size: u64,
    /// 512-byte blocks.
    pub blocks: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last access, read before anything else of the entry was.
    pub atime: Time,
    /// A symlink's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// A device's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
    /// Extended attributes, the values in hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, String>,
    /// Inode flags (`chattr`), 0 where there are none.
    pub flags: u32,
    /// See [`crate::snapshot`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Extremes of `/proc/meminfo` in KiB while a sampler watched.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Peak {
    /// How often it looked.
    pub samples: u64,
    /// `Cached` and `Slab` and `AnonPages` together at the start: what the tree and its inodes take.
    pub start: u64,
    /// The highest that sum was.
    pub high: u64,
    /// The lowest `MemFree` was.
    pub free_low: u64,
    /// `MemFree` at the start.
    pub free_start: u64,
}
