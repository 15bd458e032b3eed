//! What a scenario can expect. A missing key expects nothing.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Assertions on the probe's account.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Expect {
    /// Type of `/` in mountinfo.
    pub(crate) root: Option<String>,
    /// Type of `/` by statfs. "same" is the type of the initial root.
    pub(crate) statfs: Option<String>,
    /// runc's `pivot_root` in a child namespace.
    pub(crate) pivot_root: Option<Works>,
    /// `unshare(CLONE_NEWUSER)`.
    pub(crate) userns: Option<Works>,
    /// The tree is as it was packed, or as the step `report` saw it.
    pub(crate) tree: Option<Like>,
    /// All mounts in order, each as `POINT TYPE`; or "before": as the step `report` saw them, except `/`.
    pub(crate) mounts: Option<Mounts>,
    pub(crate) argv: Option<Vec<String>>,
    /// In order.
    pub(crate) environ: Option<Vec<String>>,
    pub(crate) cwd: Option<String>,
    /// Octal.
    pub(crate) umask: Option<String>,
    /// All open descriptors, each as `NUMBER TARGET`.
    pub(crate) descriptors: Option<Vec<String>>,
    /// No signal is blocked, ignored or caught.
    pub(crate) signals_default: bool,
    /// Size and number of inodes of `/`.
    pub(crate) size_kib: Option<u64>,
    /// The size of `/` in percent of MemTotal.
    pub(crate) size_percent: Option<u64>,
    pub(crate) inodes: Option<u64>,
    /// Options that the file system on `/` must have.
    pub(crate) options: Vec<String>,
    /// The devices in `/proc/swaps`.
    pub(crate) swaps: Option<Vec<String>>,
    /// Whether pages were locked in memory.
    pub(crate) locked: Option<bool>,
    /// Parts of repot's lines in the kernel log.
    pub(crate) log: Vec<String>,
    /// Texts that no line of repot may contain.
    pub(crate) log_without: Vec<String>,
    /// Page cache in KiB that may remain besides the tree and cannot be dropped.
    pub(crate) memory_over_tree: Option<u64>,
    /// Files below `/proc/sys/vm` and their contents.
    pub(crate) settings: BTreeMap<String, String>,
    /// The old root's superblock is gone.
    pub(crate) old_root_gone: Option<Works>,
    /// Texts on the console of a boot that ends without an account, because no init runs.
    pub(crate) console: Option<Vec<String>>,
    /// How many markers of [`crate::scenario::Tree::Secret`] the memory of the guest contains at the end: at
    /// least and at most.
    pub(crate) markers: Option<(usize, usize)>,
    /// A text on the console after which the guest keeps running. It is killed then.
    pub(crate) stays: Option<String>,
}

/// Always, never, or only on some kernels.
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
    /// The answer for one kernel.
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
