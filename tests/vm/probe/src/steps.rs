//! What a boot can ask the probe to do as `/init`, before the init under test is executed in its place.
//!
//! The steps stand as JSON in the file [`FILE`] of the image. They make what an archive cannot carry:
//! mounts, attributes, sub-second times, holes, a machine with little memory left.

use serde::{Deserialize, Serialize};

/// Where the steps are in the image, from its root.
pub const FILE: &str = "probe-steps.json";

/// One step. Paths are absolute paths of the guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// `mkdir -p`.
    Mkdir(String),
    /// A file with a short text.
    File {
        /// Where.
        path: String,
        /// The text.
        text: String,
    },
    /// A file of `size` bytes, of which only `data` (offset and length) is written.
    Sparse {
        /// Where.
        path: String,
        /// Its length.
        size: u64,
        /// What of it is not a hole.
        data: Vec<(u64, u64)>,
    },
    /// A new file system.
    Mount {
        /// Its type.
        kind: String,
        /// Its mount point, which is made when missing.
        at: String,
        /// Options as in mount(8).
        #[serde(default)]
        options: String,
    },
    /// A bind mount, of a file or of a directory.
    Bind {
        /// What.
        from: String,
        /// Where; there already.
        at: String,
    },
    /// Another name for what is at `from`, a symlink itself included.
    Link {
        /// What.
        from: String,
        /// The new name.
        to: String,
    },
    /// A symlink.
    Symlink {
        /// Where.
        path: String,
        /// What it says.
        target: String,
    },
    /// An extended attribute, on the entry itself.
    Xattr {
        /// Of what.
        path: String,
        /// Its name.
        name: String,
        /// Its value in hexadecimal.
        hex: String,
    },
    /// Access and modification time, in seconds and nanoseconds.
    Times {
        /// Of what.
        path: String,
        /// Last access.
        atime: (i64, i64),
        /// Last modification.
        mtime: (i64, i64),
    },
    /// Inode flags by `chattr`'s letters: `a`, `i`, `d`, `A`.
    Flags {
        /// Of what.
        path: String,
        /// The letters.
        flags: String,
    },
    /// Removes a file: a `/dev/console` the kernel put there, say.
    Remove(String),
    /// A descriptor left open across exec.
    Leak(String),
    /// Leaves this much memory free, in KiB, by keeping the rest as huge pages nobody uses.
    LeaveFree(u64),
    /// A helper that the kernel starts, because a process of ours crashes, and that runs for so many milliseconds. It must be a copy of
    /// the probe.
    Helper {
        /// What it executes.
        path: String,
        /// How long it runs.
        milliseconds: u64,
    },
    /// A process that keeps the extremes of memory use until the real init asks.
    Sample {},
    /// Gives the account `before`.
    Report {},
    /// Executes the init under test with the arguments and environment this program was given.
    Exec(String),
}
