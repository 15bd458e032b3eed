//! What the user asks for: `/etc/repot.conf` in the image, overruled by `repot.KEY=VALUE` on the kernel
//! command line.
//!
//! Nothing here is fatal: what cannot be understood is told and left out.

pub mod cmdline;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::display::Quoted;
use crate::payload::index;
use cmdline::{Param, same_key};

/// How the root is re-homed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Move an initial ramfs or tmpfs; bind where a move cannot fit; stay otherwise.
    #[default]
    Auto,
    /// Move the tree to a tmpfs of its own.
    Move,
    /// Mount the same file system once more, above itself.
    Bind,
    /// Leave the root alone.
    Stay,
}

/// What to do when no step can be taken any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Go down the ladder, and in the end do as `panic=` says.
    #[default]
    Continue,
    /// Execute a shell.
    Shell,
    /// Restart the machine.
    Reboot,
    /// Switch the machine off.
    Poweroff,
    /// Halt the machine.
    Halt,
}

/// How much is written to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// One line more that tells what happened.
    #[default]
    Info,
    /// Each step.
    Debug,
}

/// A size or count as tmpfs(5) takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes, or inodes; 0 means no limit.
    Exactly(u64),
    /// So many percent of the memory.
    Percent(u64),
}

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// `mode=`
    pub mode: Mode,
    /// `size=`
    pub size: Option<Amount>,
    /// `nr_inodes=`
    pub nr_inodes: Option<Amount>,
    /// Further options of tmpfs; without a value where they are flags.
    pub tmpfs: Vec<(String, Option<String>)>,
    /// Whether the kernel's command line has a default for `huge=` (`transparent_hugepage_tmpfs=`, since
    /// 6.14), which no mount tells; one that was built into it (`advise`) is not seen.
    pub huge_by_default: bool,
    /// `init=`, of ours or of the kernel's.
    pub init: Option<Vec<u8>>,
    /// `onerror=`
    pub onerror: OnError,
    /// `truncated=continue`: boot although the kernel could not unpack everything.
    pub boot_truncated: bool,
    /// `threads=`
    pub threads: Option<u32>,
    /// `log=`
    pub log: Verbosity,
    /// `wipe=yes`: overwrite contents before they are freed.
    pub wipe: bool,
    /// `payload=`: the digests that the index of the payload must have, all of them; `None` for one that
    /// could not be understood, which none has.
    pub payload: Vec<Option<[u8; 32]>>,
    /// Whether the file or the command line could not be read, so that what is asked of a payload is not
    /// known.
    pub unread: bool,
    /// `panic=`: seconds until the kernel reboots after a panic; 0 for never, negative for at once.
    pub panic: i32,
    /// What could not be understood.
    pub warnings: Vec<String>,
}

/// The options of tmpfs that are handed on as they are.
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
    /// Reads the configuration file, where there is one, then the command line, unless the file forbids that.
    pub fn read(file: Option<&[u8]>, line: &[Param<'_>]) -> Options {
        let huge_by_default = line.iter().any(|param| same_key(param.key, b"transparent_hugepage_tmpfs"));
        let mut options = Options { huge_by_default, ..Options::default() };
        let mut powerless = false;
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
                powerless = value == Some(b"ignore");
                if !powerless {
                    options
                        .warnings
                        .push(format!("/etc/repot.conf:{}: cmdline accepts only \"ignore\"", number + 1));
                }
            } else if let Err(why) = options.set(key, value) {
                options.warnings.push(format!("/etc/repot.conf:{}: {why}", number + 1));
            }
        }
        if powerless {
            return options;
        }
        let mut inits = (None, None);
        for param in line {
            if same_key(param.key, b"init") {
                inits.0 = param.value;
            }
            let Some(key) = param.key.strip_prefix(b"repot.") else { continue };
            if same_key(key, b"init") {
                inits.1 = param.value;
            } else if let Err(why) = options.set(key, param.value) {
                options.warnings.push(format!("command line: repot.{}: {why}", key.escape_ascii()));
            }
        }
        if let Some(init) = inits.1.or(inits.0)
            && let Err(why) = options.set(b"init", Some(init))
        {
            options.warnings.push(format!("command line: {why}"));
        }
        options
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        let bad = |wanted: &str| {
            let value = value.unwrap_or_default();
            Err(format!("invalid value {} for {}: expected {wanted}", Quoted(value), key.escape_ascii()))
        };
        let is = |name: &str| same_key(key, name.as_bytes());
        let word = value.unwrap_or_default();
        if is("mode") {
            self.mode = match word {
                b"auto" => Mode::Auto,
                b"move" => Mode::Move,
                b"bind" => Mode::Bind,
                b"stay" => Mode::Stay,
                _ => return bad("auto, move, bind or stay"),
            };
        } else if is("size") {
            match amount(word) {
                Some(size) => self.size = Some(size),
                None => return bad("a size such as 512m or 50%, as in tmpfs(5)"),
            }
        } else if is("nr_inodes") {
            match amount(word) {
                Some(count @ Amount::Exactly(_)) => self.nr_inodes = Some(count),
                _ => return bad("a number such as 20000 or 100k, as in tmpfs(5)"),
            }
        } else if is("init") {
            if !word.starts_with(b"/") || word.contains(&0) {
                return bad("an absolute path");
            }
            self.init = Some(word.to_vec());
        } else if is("onerror") {
            self.onerror = match word {
                b"continue" => OnError::Continue,
                b"shell" => OnError::Shell,
                b"reboot" => OnError::Reboot,
                b"poweroff" => OnError::Poweroff,
                b"halt" => OnError::Halt,
                _ => return bad("continue, shell, reboot, poweroff or halt"),
            };
        } else if is("truncated") {
            self.boot_truncated = match word {
                b"stop" => false,
                b"continue" => true,
                _ => return bad("stop or continue"),
            };
        } else if is("threads") {
            match number(word) {
                Some(count @ 1..) => self.threads = Some(u32::try_from(count).unwrap_or(u32::MAX)),
                _ => return bad("a number, 1 or more"),
            }
        } else if is("log") {
            self.log = match word {
                b"quiet" => Verbosity::Quiet,
                b"info" => Verbosity::Info,
                b"debug" => Verbosity::Debug,
                _ => return bad("quiet, info or debug"),
            };
        } else if is("wipe") {
            match switch(value) {
                Some(on) => self.wipe = on,
                None => return bad("yes or no"),
            }
        } else if is("payload") {
            // Never forgotten again: the command line can ask for more than the file, not for less.
            let digest = word.strip_prefix(b"sha256:").and_then(index::hexadecimal);
            self.payload.push(digest);
            if digest.is_none() {
                return bad("sha256: and 64 lowercase hexadecimal digits");
            }
        } else if let Some(name) = TMPFS.iter().find(|name| is(name)) {
            self.tmpfs.retain(|(known, _)| known != name);
            let flag =
                !matches!(*name, "mpol" | "huge" | "nr_blocks" | "casefold") && !name.contains("limit");
            let value = match (flag, switch(value)) {
                (true, Some(true)) => None,
                (true, Some(false)) => return Ok(()),
                (true, None) => return bad("yes or no"),
                (false, _) => match value.map(core::str::from_utf8) {
                    Some(Ok(text)) => Some(text.to_string()),
                    None if *name == "casefold" => None,
                    _ => return bad("a value as in tmpfs(5)"),
                },
            };
            self.tmpfs.push((name.to_string(), value));
        } else {
            return Err(format!("unknown key {}, ignored", Quoted(key)));
        }
        Ok(())
    }
}

fn switch(value: Option<&[u8]>) -> Option<bool> {
    match value {
        None | Some(b"yes" | b"1" | b"on" | b"true") => Some(true),
        Some(b"no" | b"0" | b"off" | b"false") => Some(false),
        Some(_) => None,
    }
}

fn number(text: &[u8]) -> Option<u64> {
    core::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

fn amount(text: &[u8]) -> Option<Amount> {
    let (digits, unit) = match text {
        [digits @ .., b'%'] => return number(digits).map(Amount::Percent),
        [digits @ .., unit] if unit.is_ascii_alphabetic() => (digits, unit.to_ascii_lowercase()),
        digits => (digits, b' '),
    };
    let shift = match unit {
        b' ' => 0,
        b'k' => 10,
        b'm' => 20,
        b'g' => 30,
        b't' => 40,
        _ => return None,
    };
    number(digits)?.checked_mul(1 << shift).map(Amount::Exactly)
}

#[cfg(test)]
mod tests {
    use super::cmdline::parse;
    use super::*;

    fn read(file: &str, line: &str) -> Options {
        Options::read(Some(file.as_bytes()), &parse(line.as_bytes()))
    }

    #[test]
    fn command_line_overrules_the_file() {
        let options =
            read("# ours\nmode = move\nsize=1g\n", "repot.mode=bind repot.nr-inodes=4k repot.noswap");
        assert_eq!(options.mode, Mode::Bind);
        assert_eq!(options.size, Some(Amount::Exactly(1 << 30)));
        assert_eq!(options.nr_inodes, Some(Amount::Exactly(4096)));
        assert_eq!(options.tmpfs, [("noswap".to_string(), None)]);
        assert_eq!(options.warnings, [""; 0]);
    }

    #[test]
    fn file_can_make_the_command_line_powerless() {
        let line = "repot.mode=stay init=/b transparent-hugepage-tmpfs=advise";
        let options = read("cmdline=ignore\ninit=/a\n", line);
        assert_eq!((options.mode, options.init.as_deref()), (Mode::Auto, Some(&b"/a"[..])));
        // That is no wish of anybody's, but what the kernel does.
        assert!(options.huge_by_default && !read("", "").huge_by_default);
    }

    #[test]
    fn what_is_asked_of_a_payload_adds_up() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let options = read(&format!("payload=sha256:{a}\n"), &format!("repot.payload=sha256:{b}"));
        assert_eq!(options.payload, [Some([0xaa; 32]), Some([0xbb; 32])]);
        let options =
            read(&format!("cmdline=ignore\npayload=sha256:{a}"), &format!("repot.payload=sha256:{b}"));
        assert_eq!(options.payload, [Some([0xaa; 32])]);
        // What is not understood is not left out here.
        let options = read("payload=md5:0\n", "repot.payload");
        assert_eq!((options.payload, options.warnings.len()), (alloc::vec![None, None], 2));
    }

    #[test]
    fn our_init_goes_before_the_kernels() {
        assert_eq!(read("init=/f", "init=/k").init.as_deref(), Some(&b"/k"[..]));
        assert_eq!(read("", "repot.init=/r init=/k").init.as_deref(), Some(&b"/r"[..]));
    }

    #[test]
    fn nonsense_is_named_and_left_out() {
        let options = read("colour=red\nsize=lots\n", "repot.mode=fly repot.threads=0 repot.size=50%");
        assert_eq!(options.mode, Mode::Auto);
        assert_eq!(options.size, Some(Amount::Percent(50)));
        assert_eq!(options.warnings.len(), 4, "{:?}", options.warnings);
        assert!(options.warnings[0].contains("/etc/repot.conf:1: unknown key \"colour\""));
        assert!(options.warnings[2].contains("invalid value \"fly\" for mode"));
    }
}
