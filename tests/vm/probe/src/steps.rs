//! What a boot can ask the probe to do as `/init`, before the init under test runs.
//!
//! The steps are a JSON file of the image, [`FILE`]. They create what an archive cannot carry: mounts,
//! attributes, times below a second, holes, a machine with little free memory.

use serde::{Deserialize, Serialize};

/// The file with the steps, relative to the root.
pub const FILE: &str = "probe-steps.json";

/// One step. Paths are absolute paths of the guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// `mkdir -p`.
    Mkdir(String),
    /// A file with a short text. Its directory is created if missing.
    File {
        /// Path.
        path: String,
        /// The text.
        text: String,
    },
    /// A file of `size` bytes, of which only the ranges in `data` (offset and length) are written.
    Sparse {
        /// Path.
        path: String,
        /// Its length.
        size: u64,
        /// The ranges that are not holes.
        data: Vec<(u64, u64)>,
    },
    /// A new file system.
    Mount {
        /// Its type.
        kind: String,
        /// Its mount point, created if missing.
        at: String,
        /// Options as in mount(8).
        #[serde(default)]
        options: String,
    },
    /// A bind mount, of a file or of a directory.
    Bind {
        /// The source.
        from: String,
        /// The mount point, which must exist.
        at: String,
    },
    /// Changes flags of the mount `at`, each as in mount(8).
    Remount {
        /// The mount point.
        at: String,
        /// The flags, separated by commas.
        flags: String,
    },
    /// Makes the mount `at` `shared`, `slave` or `unbindable`.
    Propagate {
        /// The mount point.
        at: String,
        /// What it becomes.
        to: String,
    },
    /// A hard link to `from`. Symlinks are not followed.
    Link {
        /// The existing path.
        from: String,
        /// The new path.
        to: String,
    },
    /// A symlink.
    Symlink {
        /// Path.
        path: String,
        /// Its target.
        target: String,
    },
    /// An extended attribute, on the entry itself.
    Xattr {
        /// Path.
        path: String,
        /// Its name.
        name: String,
        /// Its value in hexadecimal.
        hex: String,
    },
    /// Access and modification time, in seconds and nanoseconds.
    Times {
        /// Path.
        path: String,
        /// Last access.
        atime: (i64, i64),
        /// Last modification.
        mtime: (i64, i64),
    },
    /// Writes the contents of the file `from` to a file of the kernel, in one call.
    Load {
        /// The file.
        from: String,
        /// The file of the kernel.
        to: String,
    },
    /// Inode flags by `chattr`'s letters: `a`, `i`, `d`, `A`.
    Flags {
        /// Path.
        path: String,
        /// The letters.
        flags: String,
    },
    /// Removes a file, such as the kernel's `/dev/console`.
    Remove(String),
    /// A descriptor left open across exec.
    Leak(String),
    /// Leaves this much memory available, in KiB. The rest becomes huge pages that nobody uses.
    LeaveAvailable(u64),
    /// Makes the kernel start a helper that runs for this long: a process of ours crashes, and the helper is
    /// its core dump handler. It must be a copy of the probe.
    Helper {
        /// The program of the helper.
        path: String,
        /// How long it runs.
        milliseconds: u64,
    },
    /// Reports the account `before`.
    Report {},
    /// Executes the init under test with the arguments and environment of this program.
    Exec(String),
}
