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
    /// `size=`, or that of the kernel's `initramfs_options=`
    pub size: Option<Amount>,
    /// `nr_inodes=`, or that of the kernel's `initramfs_options=`
    pub nr_inodes: Option<Amount>,
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
    /// `payload.overlay=yes`, set by every source that sets a digest: entries beside the payload may override
    /// it.
    pub payload_overlay: bool,
    /// Settings that decide what runs, in a source that another source with a digest does not cover, in a
    /// clause each.
    pub uncovered: Vec<String>,
    /// Whether a source could not be read, so that it is unknown which digests are required.
    pub unread: bool,
    /// `panic=`: seconds until the kernel reboots after a panic. 0 means never, a negative number at once.
    pub panic: i32,
    /// Warnings about unknown keys and malformed values.
    pub warnings: Vec<String>,
}

/// Where `repot pack` and `repot append` put the image's own `/init`.
const CHAIN: &[u8] = b"/init.real";

/// The key that lets entries beside a payload override it.
const OVERLAY: &[u8] = b"payload.overlay";

/// What one source sets of the keys that a digest depends on.
struct Trust {
    digests: usize,
    overlay: bool,
    init: Option<Vec<u8>>,
}

impl Trust {
    /// Takes them out of the options, the digests excepted.
    fn take(options: &mut Options) -> Trust {
        let overlay = core::mem::take(&mut options.payload_overlay);
        Trust { digests: options.payload.len(), overlay, init: options.init.take() }
    }
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

    /// Decides what counts if a digest is set. Whoever controls one source must not be able to switch off or
    /// to get around a digest that another source sets.
    fn weigh(&mut self, file: &Trust, line: &Trust, ignored: bool) {
        let allows = |source: &Trust| source.overlay || source.digests == 0;
        self.payload_overlay = (file.overlay || line.overlay) && allows(file) && allows(line);
        if (file.overlay || line.overlay) && !self.payload_overlay {
            self.warnings.push(
                "payload.overlay=yes ignored: it counts only in the source that sets payload=".to_string(),
            );
        }
        self.init = line.init.clone().or(file.init.clone());
        if line.digests == 0 || self.payload_overlay {
            return;
        }
        if line.init.is_none() && file.init.is_some() {
            self.uncovered.push("init= (set repot.init= on the command line instead)".to_string());
        }
        // That of the tool is no choice.
        if line.init.is_none() && self.chain.as_deref().is_some_and(|chain| chain != CHAIN) {
            self.uncovered.push("chain= (set repot.init= on the command line instead)".to_string());
        }
        if ignored {
            self.uncovered.push("cmdline=ignore (the command line sets more than the digest)".to_string());
        }
    }

    /// Takes over the options of the initial root (`initramfs_options=`, since 6.18 and in earlier stable
    /// kernels) that the file does not set. The owner and the mode are those of the root directory already.
    fn inherit(&mut self, line: &[Param<'_>]) {
        let (size, nr_inodes, own) = (self.size, self.nr_inodes, self.tmpfs.len());
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
        self.size = size.or(self.size);
        self.nr_inodes = nr_inodes.or(self.nr_inodes);
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
        // Whatever a file says.
        for ignore in ["cmdline=ignore", "cmdline=ignore\ncmdline=", "cmdline=ignore\npayload.overlay=yes"] {
            let options = read(
                &format!("{ignore}\npayload=sha256:{a}"),
                &format!("repot.payload=sha256:{b} mode=stay"),
            );
            assert_eq!(
                (options.payload, options.mode),
                (alloc::vec![Some([0xaa; 32]), Some([0xbb; 32])], Mode::Auto)
            );
            assert!(!options.payload_overlay && options.uncovered.is_empty());
        }
        // A malformed digest is not ignored.
        let options = read("payload=md5:0\n", "repot.payload");
        assert_eq!((options.payload, options.warnings.len()), (alloc::vec![None, None], 2));
    }

    /// Only the source that sets the digest can allow what the digest does not cover.
    #[test]
    fn a_source_cannot_weaken_the_digest_of_another() {
        let digest = format!("payload=sha256:{}", "a".repeat(64));
        let (both, ours) = (format!("{digest}\npayload.overlay=yes"), format!("repot.{digest}"));
        let overlay = "repot.payload.overlay=yes";
        for (file, line, allowed) in [
            (digest.as_str(), "", false),
            (&both, "", true),
            (&digest, overlay, false),
            ("payload.overlay=yes", &ours, false),
            (&both, &ours, false),
            ("", &format!("{ours} {overlay}"), true),
            (&digest, &format!("{ours} {overlay}"), false),
            (&both, &format!("{ours} {overlay}"), true),
        ] {
            let options = read(file, line);
            let warned =
                options.warnings.iter().any(|warning| warning.starts_with("payload.overlay=yes ignored"));
            assert_eq!(options.payload_overlay, allowed, "{file} | {line}");
            assert_eq!(warned, !allowed && format!("{file}{line}").contains("overlay"), "{file} | {line}");
        }
    }

    /// A file beside the payload decides neither which init runs nor which part of the command line counts.
    #[test]
    fn what_a_digest_on_the_command_line_does_not_cover() {
        let ours = format!("repot.payload=sha256:{}", "a".repeat(64));
        let uncovered = |file: &str, more: &str| read(file, &format!("{ours} {more}")).uncovered;
        assert!(uncovered("init=/bin/sh", "")[0].starts_with("init="));
        assert!(uncovered("cmdline=ignore", "init=/b")[0].starts_with("cmdline=ignore"));
        assert_eq!(uncovered("cmdline=ignore\ninit=/a", "repot.mode=move").len(), 2);
        assert!(uncovered("init=/a\nsize=1g", "init=/b quiet").is_empty());
        assert_eq!(read("init=/a", &format!("{ours} init=/b")).init.as_deref(), Some(&b"/b"[..]));
        assert!(uncovered("init=/a", "repot.payload.overlay").is_empty());
        assert!(read(&ours.replace("repot.", "init=/a\n"), "init=/b").uncovered.is_empty());
    }

    #[test]
    fn repot_init_precedes_the_kernels_init() {
        assert_eq!(read("init=/f", "init=/k").init.as_deref(), Some(&b"/k"[..]));
        assert_eq!(read("", "repot.init=/r init=/k").init.as_deref(), Some(&b"/r"[..]));
    }

    #[test]
    fn the_options_of_the_initial_root_are_kept() {
        let line = "initramfs_options=size=90%,nr_inodes=0,mpol=bind:0,2,huge=always,mode=0700,odd";
        let options = read("huge=never", line);
        assert_eq!((options.size, options.nr_inodes), (Some(Amount::Percent(90)), Some(Amount::Exactly(0))));
        let text = |text: &str| text.to_string();
        let expected = [(text("huge"), Some(text("never"))), (text("mpol"), Some(text("bind:0,2")))];
        assert_eq!(options.tmpfs, expected);
        assert_eq!((options.owner, options.warnings), (Owner::default(), alloc::vec![]));
        assert_eq!(read("size=10%", line).size, Some(Amount::Percent(10)));
        assert_eq!(read("", &format!("{line} repot.size=1g")).size, Some(Amount::Exactly(1 << 30)));
        assert_eq!(read("cmdline=ignore", line), read("cmdline=ignore", ""));
    }

    #[test]
    fn a_number_is_the_mode_of_the_root_directory() {
        let options = read("mode=bind\nmode=0750\nuid=5\ncontext=system_u:object_r:tmpfs_t:s0:c1,c2", "");
        assert_eq!((options.mode, options.owner.mode, options.owner.uid), (Mode::Bind, Some(0o750), Some(5)));
        assert_eq!(options.tmpfs[0].1.as_deref(), Some("system_u:object_r:tmpfs_t:s0:c1,c2"));
        assert_eq!(read("mode=0788\nmode=17777\nuid=root", "").warnings.len(), 3);
    }

    #[test]
    fn only_repot_init_replaces_the_chain() {
        let chain = |line| read("chain=/init.real\n", line).chain;
        assert_eq!(chain("init=/nix/store/x/init").as_deref(), Some(&b"/init.real"[..]));
        assert_eq!(chain("repot.init=/bin/sh"), None);
        assert_eq!(read("chain=init", "").warnings.len(), 1);
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
