//! What a scenario may ask to be seen. A key that is left out asks for nothing.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Assertions on the probe's account.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Expect {
    /// Type of `/` in mountinfo.
    pub(crate) root: Option<String>,
    /// Type of `/` by statfs; "same" for what the kernel unpacked into.
    pub(crate) statfs: Option<String>,
    /// runc's `pivot_root` in a child namespace.
    pub(crate) pivot_root: Option<Works>,
    /// `unshare(CLONE_NEWUSER)`.
    pub(crate) userns: Option<Works>,
    /// The tree is what was packed, or what the step `report` saw.
    pub(crate) tree: Option<Like>,
    /// All mounts in order, each `POINT TYPE`; or as the step `report` saw them, but for `/`.
    pub(crate) mounts: Option<Mounts>,
    pub(crate) argv: Option<Vec<String>>,
    /// In order.
    pub(crate) environ: Option<Vec<String>>,
    pub(crate) cwd: Option<String>,
    /// Octal.
    pub(crate) umask: Option<String>,
    /// All that are open, each `NUMBER TARGET`.
    pub(crate) descriptors: Option<Vec<String>>,
    /// No signal is blocked, ignored or caught.
    pub(crate) signals_default: bool,
    /// Size and number of inodes of `/`.
    pub(crate) size_kib: Option<u64>,
    pub(crate) inodes: Option<u64>,
    /// Each is an option of the file system on `/`.
    pub(crate) options: Vec<String>,
    /// Each is part of some kernel log line of repot.
    pub(crate) log: Vec<String>,
    /// None of these is part of any.
    pub(crate) log_without: Vec<String>,
    /// Page cache that cannot be dropped is the tree's and no more than this besides, in KiB.
    pub(crate) memory_over_tree: Option<u64>,
    /// What the sampler saw above its first look, in KiB.
    pub(crate) extra_memory: Option<u64>,
    /// Files below `/proc/sys/vm` and what is in them.
    pub(crate) settings: BTreeMap<String, String>,
    /// The old root's superblock is gone.
    pub(crate) old_root_gone: Option<Works>,
    /// No account is given; these are on the console instead. For boots that end without any init.
    pub(crate) console: Option<Vec<String>>,
    /// When this is on the console the guest has come to where it stays; it is ended then.
    pub(crate) stays: Option<String>,
}

/// Always or never, or with the kernel's help.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Works {
    Always(bool),
    Sometimes(From7),
}

/// From kernel 7.0 on.
#[derive(Debug, Deserialize)]
pub(crate) enum From7 {
    #[serde(rename = "from 7.0")]
    From7,
}

impl Works {
    /// What is asked for on a kernel.
    pub(crate) fn on(&self, series: &str) -> bool {
        match self {
            Works::Always(answer) => *answer,
            Works::Sometimes(From7::From7) => {
                series.split('.').next().and_then(|major| major.parse().ok()) >= Some(7)
            }
        }
    }
}

/// What the tree is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Like {
    Packed,
    Before,
}

/// What the mounts are compared with.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Mounts {
    Like(AsBefore),
    These(Vec<String>),
}

/// As the step `report` saw them.
#[derive(Debug, Deserialize)]
pub(crate) enum AsBefore {
    #[serde(rename = "before")]
    Before,
}
