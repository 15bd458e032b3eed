//! The configuration: `/etc/repot.conf` in the image, overridden by `repot.KEY=VALUE` on the kernel command
//! line.
//!
//! Unknown keys and malformed values are logged and ignored; they never stop the boot.

pub mod cmdline;
mod keys;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::display::Quoted;
use cmdline::{Param, same_key};
use keys::{KEYS, switch};

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

/// A size or a count, as in tmpfs(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// This many bytes or inodes; 0 means no limit.
    Exactly(u64),
    /// A percentage of the memory.
    Percent(u64),
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
    /// Further options of tmpfs; `None` for flags.
    pub tmpfs: Vec<(String, Option<String>)>,
    /// Whether the kernel command line sets a default for `huge=` (`transparent_hugepage_tmpfs=`, since
    /// 6.14), which mountinfo does not show. A default built into the kernel is not detected.
    pub huge_by_default: bool,
    /// `repot.init=`, or `init=` of the kernel.
    pub init: Option<Vec<u8>>,
    /// `onerror=`
    pub onerror: OnError,
    /// `truncated=continue`: boot although the kernel did not unpack everything.
    pub boot_truncated: bool,
    /// `threads=`
    pub threads: Option<u32>,
    /// `log=`
    pub log: Verbosity,
    /// `wipe=yes`: overwrite contents before they are freed.
    pub wipe: bool,
    /// `others=ignore`: with `mode=move`, move although other processes run.
    pub ignore_others: bool,
    /// `payload=`: the digests that the index of the payload must have, all of them. `None` is a malformed
    /// digest, which no index has.
    pub payload: Vec<Option<[u8; 32]>>,
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
];

impl Options {
    /// Reads the configuration file, if there is one, and then the command line, unless the file forbids that
    /// with `cmdline=ignore`.
    pub fn read(file: Option<&[u8]>, line: &[Param<'_>]) -> Options {
        let huge_by_default = line.iter().any(|param| same_key(param.key, b"transparent_hugepage_tmpfs"));
        let mut options = Options { huge_by_default, ..Options::default() };
        let mut ignore_cmdline = false;
        for (number, text) in file.unwrap_or_default().split(|byte| *byte == b'\n').enumerate() {
            let text = text.trim_ascii();
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            let (key, value) = match text.iter().position(|byte| *byte == b'=') {
                Some(at) => (text[..at].trim_ascii(), Some(text[at + 1..].trim_ascii())),
                None => (text, None),
            };
            if key == b"cmdline" {
                ignore_cmdline = value == Some(b"ignore");
                if !ignore_cmdline {
                    options
                        .warnings
                        .push(format!("/etc/repot.conf:{}: cmdline accepts only \"ignore\"", number + 1));
                }
            } else if let Err(why) = options.set(key, value) {
                options.warnings.push(format!("/etc/repot.conf:{}: {why}", number + 1));
            }
        }
        if ignore_cmdline {
            return options;
        }
        let (mut kernel_init, mut our_init) = (None, None);
        for param in line {
            if same_key(param.key, b"init") {
                kernel_init = param.value;
            }
            let Some(key) = param.key.strip_prefix(b"repot.") else { continue };
            if same_key(key, b"init") {
                our_init = param.value;
            } else if let Err(why) = options.set(key, param.value) {
                options.warnings.push(format!("command line: repot.{}: {why}", key.escape_ascii()));
            }
        }
        if let Some(init) = our_init.or(kernel_init)
            && let Err(why) = options.set(b"init", Some(init))
        {
            options.warnings.push(format!("command line: {why}"));
        }
        options
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
        let flag = !matches!(name, "mpol" | "huge" | "nr_blocks" | "casefold") && !name.contains("limit");
        let value = match (flag, switch(value)) {
            (true, Some(true)) => None,
            (true, Some(false)) => return Ok(()),
            (true, None) => return Err("yes or no"),
            (false, _) => match value.map(core::str::from_utf8) {
                Some(Ok(text)) => Some(text.to_string()),
                None if name == "casefold" => None,
                _ => return Err("a value as in tmpfs(5)"),
            },
        };
        self.tmpfs.push((name.to_string(), value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::cmdline::parse;
    use super::*;

    fn read(file: &str, line: &str) -> Options {
        Options::read(Some(file.as_bytes()), &parse(line.as_bytes()))
    }

    #[test]
    fn the_command_line_overrides_the_file() {
        let options =
            read("# ours\nmode = move\nsize=1g\n", "repot.mode=bind repot.nr-inodes=4k repot.noswap");
        assert_eq!(options.mode, Mode::Bind);
        assert_eq!(options.size, Some(Amount::Exactly(1 << 30)));
        assert_eq!(options.nr_inodes, Some(Amount::Exactly(4096)));
        assert_eq!(options.tmpfs, [("noswap".to_string(), None)]);
        assert_eq!(options.warnings, [""; 0]);
    }

    #[test]
    fn the_file_can_disable_the_command_line() {
        let line = "repot.mode=stay init=/b transparent-hugepage-tmpfs=advise";
        let options = read("cmdline=ignore\ninit=/a\n", line);
        assert_eq!((options.mode, options.init.as_deref()), (Mode::Auto, Some(&b"/a"[..])));
        // This is a setting of the kernel, not of the user, so `cmdline=ignore` does not hide it.
        assert!(options.huge_by_default && !read("", "").huge_by_default);
    }

    #[test]
    fn payload_digests_add_up() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let options = read(&format!("payload=sha256:{a}\n"), &format!("repot.payload=sha256:{b}"));
        assert_eq!(options.payload, [Some([0xaa; 32]), Some([0xbb; 32])]);
        let options =
            read(&format!("cmdline=ignore\npayload=sha256:{a}"), &format!("repot.payload=sha256:{b}"));
        assert_eq!(options.payload, [Some([0xaa; 32])]);
        // A malformed digest is not ignored.
        let options = read("payload=md5:0\n", "repot.payload");
        assert_eq!((options.payload, options.warnings.len()), (alloc::vec![None, None], 2));
    }

    #[test]
    fn zram_takes_a_word_or_an_amount() {
        let options = read("zram=auto\n", "repot.zram=50% repot.zram.algorithm=lzo-rle repot.zram.limit=64m");
        assert_eq!(options.zram, Zram::Size(Amount::Percent(50)));
        assert_eq!(options.zram_algorithm.as_deref(), Some("lzo-rle"));
        assert_eq!((options.zram_limit, options.warnings.len()), (Some(Amount::Exactly(64 << 20)), 0));
        let options = read("zram=0\nzram=yes\nzram.algorithm=a/b\nzram.limit=0", "repot.zram");
        assert_eq!((options.zram, options.warnings.len()), (Zram::No, 5), "{:?}", options.warnings);
    }

    #[test]
    fn repot_init_precedes_the_kernels_init() {
        assert_eq!(read("init=/f", "init=/k").init.as_deref(), Some(&b"/k"[..]));
        assert_eq!(read("", "repot.init=/r init=/k").init.as_deref(), Some(&b"/r"[..]));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_warned_about() {
        let options = read("colour=red\nsize=lots\n", "repot.mode=fly repot.threads=0 repot.size=50%");
        assert_eq!(options.mode, Mode::Auto);
        assert_eq!(options.size, Some(Amount::Percent(50)));
        assert_eq!(options.warnings.len(), 4, "{:?}", options.warnings);
        assert!(options.warnings[0].contains("/etc/repot.conf:1: unknown key \"colour\""));
        assert!(options.warnings[2].contains("invalid value \"fly\" for mode"));
    }
}
