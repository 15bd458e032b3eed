//! The configuration: `/etc/repot.conf` in the image, overridden by `repot.KEY=VALUE` on the kernel command
//! line.
//!
//! Unknown keys and malformed values are logged and ignored; they never stop the boot.

pub mod cmdline;
mod keys;
mod trust;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem::replace;

use crate::display::Quoted;
use cmdline::{Param, same_key};
use keys::{KEYS, switch};
use trust::{OVERLAY, Trust};

/// How the root is re-homed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Move an initial ramfs or tmpfs; bind if a move cannot fit; otherwise stay.
    #[default]
    Auto,
    /// Move the tree to a new tmpfs.
    Move,
    /// Bind-mount the same file system above itself.
    Bind,
    /// Leave the root alone.
    Stay,
}

/// What to do when everything has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Try the next best method, and in the end follow `panic=`.
    #[default]
    Continue,
    /// Execute a shell.
    Shell,
    /// Reboot the machine.
    Reboot,
    /// Power the machine off.
    Poweroff,
    /// Halt the machine.
    Halt,
}

/// The verbosity of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// Also one summary line.
    #[default]
    Info,
    /// Also each step.
    Debug,
}

/// Whether to make swap in compressed memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Zram {
    /// Never.
    #[default]
    No,
    /// If the tree does not fit in memory without it.
    Auto,
    /// Always; what it may hold, uncompressed.
    Size(Amount),
}

/// What of repot's own files stays in the final root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    #[default]
    Nothing,
    /// `/init`, and `/init.real` beside it.
    Init,
    /// The markers, the attribute manifests and the modules too.
    All,
}

/// A size or a count, as in tmpfs(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// This many bytes or inodes; 0 means no limit.
    Exactly(u64),
    /// A percentage of the memory.
    Percent(u64),
}

/// The permissions and the owner of the root directory; `None` where the tree has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The twelve permission bits.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

/// The options of a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// `mode=`
    pub mode: Mode,
    /// `size=`
    pub size: Option<Amount>,
    /// `nr_inodes=`
    pub nr_inodes: Option<Amount>,
    /// `size=` of the kernel's `initramfs_options=`, which was chosen for the initial root: the new root has
    /// it too, if the tree fits.
    pub initial_size: Option<Amount>,
    /// `nr_inodes=` of the kernel's `initramfs_options=`, the same.
    pub initial_nr_inodes: Option<Amount>,
    /// `mode=` with a number, `uid=` and `gid=`: of the new root directory.
    pub owner: Owner,
    /// Further options of tmpfs; `None` for flags.
    pub tmpfs: Vec<(String, Option<String>)>,
    /// Whether the kernel command line sets a default for `huge=` (`transparent_hugepage_tmpfs=`, since
    /// 6.14), which mountinfo does not show. A default built into the kernel is not detected.
    pub huge_by_default: bool,
    /// `chain=`, unless `repot.init=` overrides it: the image's own `/init`, moved aside for this program. It
    /// comes before `init`, because the kernel's `init=` is for it to read.
    pub chain: Option<Vec<u8>>,
    /// `repot.init=`, or `init=` of the kernel.
    pub init: Option<Vec<u8>>,
    /// `mount=`: names of [`crate::essential::ESSENTIAL`] to mount before the real init is executed.
    pub mount: Vec<&'static str>,
    /// `onerror=`
    pub onerror: OnError,
    /// `truncated=continue`: boot although the kernel did not unpack everything.
    pub boot_truncated: bool,
    /// `threads=`
    pub threads: Option<u32>,
    /// `log=`
    pub log: Verbosity,
    /// `keep=`
    pub keep: Keep,
    /// `wipe=yes`: overwrite contents before they are freed.
    pub wipe: bool,
    /// `others=ignore`: with `mode=move`, move although other processes run.
    pub ignore_others: bool,
    /// `payload=`: the digests that the index of the payload must have, all of them. `None` is a malformed
    /// digest, which no index has.
    pub payload: Vec<Option<[u8; 32]>>,
    /// `payload.overlay=yes`, set by every source that sets a digest: entries beside the payload may override
    /// it.
    pub payload_overlay: bool,
    /// Settings that decide what runs, in a source that another source with a digest does not cover, in a
    /// clause each.
    pub uncovered: Vec<String>,
    /// `zram=`
    pub zram: Zram,
    /// `zram.algorithm=`
    pub zram_algorithm: Option<String>,
    /// `zram.limit=`: what the device may take, compressed.
    pub zram_limit: Option<Amount>,
    /// Whether a source could not be read, so that it is unknown which digests are required.
    pub unread: bool,
    /// `panic=`: seconds until the kernel reboots after a panic. 0 means never, a negative number at once.
    pub panic: i32,
    /// Warnings about unknown keys and malformed values.
    pub warnings: Vec<String>,
}

/// The options of tmpfs that are passed on unchanged.
const TMPFS: &[&str] = &[
    "mpol",
    "huge",
    "noswap",
    "inode32",
    "inode64",
    "nr_blocks",
    "quota",
    "usrquota",
    "grpquota",
    "usrquota_block_hardlimit",
    "usrquota_inode_hardlimit",
    "grpquota_block_hardlimit",
    "grpquota_inode_hardlimit",
    "casefold",
    "strict_encoding",
    "context",
    "fscontext",
    "defcontext",
    "rootcontext",
];

/// The options of tmpfs whose value is a text. The others are flags.
const WITH_VALUE: &[&str] =
    &["mpol", "huge", "nr_blocks", "casefold", "context", "fscontext", "defcontext", "rootcontext"];

/// Every key, with what it accepts.
pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = KEYS.iter().map(|key| (key.name, key.accepts));
    let tmpfs = TMPFS.iter().map(|name| (*name, if is_flag(name) { "yes or no" } else { VALUE }));
    [("cmdline", "ignore")].into_iter().chain(own).chain(tmpfs)
}

const VALUE: &str = "a value as in tmpfs(5)";

fn is_flag(name: &str) -> bool {
    !WITH_VALUE.contains(&name) && !name.contains("limit")
}

impl Options {
    /// Reads the configuration file, if there is one, and then the command line, unless the file forbids that
    /// with `cmdline=ignore`. A digest on the command line counts all the same.
    pub fn read(file: Option<&[u8]>, line: &[Param<'_>]) -> Options {
        let huge_by_default = line.iter().any(|param| same_key(param.key, b"transparent_hugepage_tmpfs"));
        let mut options = Options { huge_by_default, ..Options::default() };
        let ignore_cmdline = options.read_file(file.unwrap_or_default());
        let from_file = Trust::take(&mut options);
        let ignored = options.read_line(line, ignore_cmdline);
        let from_line =
            Trust { digests: options.payload.len() - from_file.digests, ..Trust::take(&mut options) };
        options.weigh(&from_file, &from_line, ignored);
        options
    }

    /// Reads the configuration file. Returns whether it says `cmdline=ignore`.
    fn read_file(&mut self, file: &[u8]) -> bool {
        let mut ignore_cmdline = false;
        for (number, text) in file.split(|byte| *byte == b'\n').enumerate() {
            let text = text.trim_ascii();
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            let (key, value) = match text.iter().position(|byte| *byte == b'=') {
                Some(at) => (text[..at].trim_ascii(), Some(text[at + 1..].trim_ascii())),
                None => (text, None),
            };
            let set = if key == b"cmdline" {
                // A wrong value must not lift what an earlier line asks for.
                ignore_cmdline |= value == Some(b"ignore");
                if value == Some(b"ignore") {
                    Ok(())
                } else {
                    Err("cmdline accepts only \"ignore\"".to_string())
                }
            } else {
                self.set(key, value)
            };
            if let Err(why) = set {
                self.warnings.push(format!("/etc/repot.conf:{}: {why}", number + 1));
            }
        }
        ignore_cmdline
    }

    /// Reads the command line, or only the keys of the payload. Returns whether others were ignored.
    fn read_line(&mut self, line: &[Param<'_>], only_payload: bool) -> bool {
        let (mut kernel_init, mut our_init, mut ignored) = (None, None, false);
        if !only_payload {
            self.inherit(line);
        }
        for param in line {
            let ours = param.key.strip_prefix(b"repot.");
            let digests = ours.is_some_and(|key| same_key(key, b"payload") || same_key(key, OVERLAY));
            if only_payload && !digests {
                ignored |= ours.is_some() || same_key(param.key, b"init");
                continue;
            }
            if same_key(param.key, b"init") {
                kernel_init = param.value;
            }
            let Some(key) = ours else { continue };
            if same_key(key, b"init") {
                our_init = param.value;
            } else if let Err(why) = self.set(key, param.value) {
                self.warnings.push(format!("command line: repot.{}: {why}", key.escape_ascii()));
            }
        }
        if our_init.is_some() {
            self.chain = None;
        }
        if let Some(init) = our_init.or(kernel_init)
            && let Err(why) = self.set(b"init", Some(init))
        {
            self.warnings.push(format!("command line: {why}"));
        }
        ignored
    }

    /// Takes over the options of the initial root (`initramfs_options=`, since 6.18 and in earlier stable
    /// kernels) that the file does not set. The owner and the mode are those of the root directory already.
    fn inherit(&mut self, line: &[Param<'_>]) {
        let (size, nr_inodes, own) = (self.size.take(), self.nr_inodes.take(), self.tmpfs.len());
        for param in line.iter().filter(|param| same_key(param.key, b"initramfs_options")) {
            for option in cmdline::mount_options(param.value.unwrap_or_default()) {
                let end = option.iter().position(|byte| *byte == b'=').unwrap_or(option.len());
                let (key, value) = (&option[..end], option.get(end + 1..));
                let known =
                    matches!(key, b"size" | b"nr_inodes") || TMPFS.iter().any(|name| key == name.as_bytes());
                let set = self.tmpfs[..own].iter().any(|(name, _)| key == name.as_bytes());
                if known && !set {
                    // What is wrong, the kernel has reported.
                    let _ = self.set(key, value);
                }
            }
        }
        self.initial_size = replace(&mut self.size, size);
        self.initial_nr_inodes = replace(&mut self.nr_inodes, nr_inodes);
    }

    /// Sets one key. On an error the message names the value and what the key accepts.
    fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        let is = |name: &str| same_key(key, name.as_bytes());
        let set = if let Some(known) = KEYS.iter().find(|known| is(known.name)) {
            (known.set)(self, value).ok_or(known.accepts)
        } else if let Some(name) = TMPFS.iter().find(|name| is(name)) {
            self.set_tmpfs(name, value)
        } else {
            return Err(format!("unknown key {}, ignored", Quoted(key)));
        };
        set.map_err(|accepted| {
            let value = Quoted(value.unwrap_or_default());
            format!("invalid value {value} for {}: expected {accepted}", key.escape_ascii())
        })
    }

    /// Sets an option of tmpfs. Returns what it accepts if the value is wrong.
    fn set_tmpfs(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), &'static str> {
        self.tmpfs.retain(|(known, _)| known != name);
        let value = match (is_flag(name), switch(value)) {
            (true, Some(true)) => None,
            (true, Some(false)) => return Ok(()),
            (true, None) => return Err("yes or no"),
            (false, _) => match value.map(core::str::from_utf8) {
                Some(Ok(text)) => Some(text.to_string()),
                None if name == "casefold" => None,
                _ => return Err(VALUE),
            },
        };
        self.tmpfs.push((name.to_string(), value));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
