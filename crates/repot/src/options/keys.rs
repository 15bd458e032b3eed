//! The keys of the configuration, and the values that they accept.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Amount, Keep, Mode, OnError, Options, Verbosity, Zram};
use crate::essential::ESSENTIAL;
use crate::payload::index;

/// A key of the configuration.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The accepted values, for messages.
    pub(super) accepts: &'static str,
    /// Sets the option; `None` if the value is wrong.
    pub(super) set: fn(&mut Options, Option<&[u8]>) -> Option<()>,
}

/// The keys, besides `cmdline` and the options of tmpfs.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "mode",
        accepts: "auto, move, bind or stay, or the octal mode of the root directory",
        set: |options, value| {
            let value = value?;
            if value.first().is_some_and(u8::is_ascii_digit) {
                options.owner.mode = Some(octal(value)?);
                return Some(());
            }
            options.mode = match value {
                b"auto" => Mode::Auto,
                b"move" => Mode::Move,
                b"bind" => Mode::Bind,
                b"stay" => Mode::Stay,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "size",
        accepts: "a size such as 512m or 50%, as in tmpfs(5)",
        set: |options, value| {
            options.size = Some(amount(value?)?);
            Some(())
        },
    },
    Key {
        name: "nr_inodes",
        accepts: "a number such as 20000 or 100k, as in tmpfs(5)",
        set: |options, value| {
            let count = amount(value?).filter(|count| matches!(count, Amount::Exactly(_)))?;
            options.nr_inodes = Some(count);
            Some(())
        },
    },
    Key {
        name: "uid",
        accepts: "a number",
        set: |options, value| {
            options.owner.uid = Some(u32::try_from(number(value?)?).ok()?);
            Some(())
        },
    },
    Key {
        name: "gid",
        accepts: "a number",
        set: |options, value| {
            options.owner.gid = Some(u32::try_from(number(value?)?).ok()?);
            Some(())
        },
    },
    Key {
        name: "init",
        accepts: "an absolute path",
        set: |options, value| {
            options.init = Some(path(value)?);
            Some(())
        },
    },
    Key {
        name: "chain",
        accepts: "an absolute path",
        set: |options, value| {
            options.chain = Some(path(value)?);
            Some(())
        },
    },
    Key {
        name: "mount",
        accepts: "proc, sysfs, devtmpfs, devpts, shm, mqueue, cgroup2, run and tmp, separated by commas",
        set: |options, value| {
            let names = value?.split(|byte| *byte == b',').filter(|name| !name.is_empty());
            let known = |name: &[u8]| ESSENTIAL.iter().find(|known| known.name.as_bytes() == name);
            options.mount = names.map(|name| Some(known(name)?.name)).collect::<Option<_>>()?;
            Some(())
        },
    },
    Key {
        name: "onerror",
        accepts: "continue, shell, reboot, poweroff or halt",
        set: |options, value| {
            options.onerror = match value? {
                b"continue" => OnError::Continue,
                b"shell" => OnError::Shell,
                b"reboot" => OnError::Reboot,
                b"poweroff" => OnError::Poweroff,
                b"halt" => OnError::Halt,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "truncated",
        accepts: "stop or continue",
        set: |options, value| {
            options.boot_truncated = match value? {
                b"stop" => false,
                b"continue" => true,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "threads",
        accepts: "a number, 1 or more",
        set: |options, value| {
            let count = number(value?).filter(|count| *count > 0)?;
            options.threads = Some(u32::try_from(count).unwrap_or(u32::MAX));
            Some(())
        },
    },
    Key {
        name: "log",
        accepts: "quiet, info or debug",
        set: |options, value| {
            options.log = match value? {
                b"quiet" => Verbosity::Quiet,
                b"info" => Verbosity::Info,
                b"debug" => Verbosity::Debug,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "others",
        accepts: "respect or ignore",
        set: |options, value| {
            options.ignore_others = match value? {
                b"respect" => false,
                b"ignore" => true,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "keep",
        accepts: "no, init or all",
        set: |options, value| {
            options.keep = match value? {
                b"no" => Keep::Nothing,
                b"init" => Keep::Init,
                b"all" => Keep::All,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "wipe",
        accepts: "yes or no",
        set: |options, value| {
            options.wipe = switch(value)?;
            Some(())
        },
    },
    Key {
        name: "zram",
        accepts: "no, auto, a size such as 512m, or a percentage such as 50%",
        set: |options, value| {
            options.zram = match value? {
                b"no" => Zram::No,
                b"auto" => Zram::Auto,
                size => Zram::Size(positive(size)?),
            };
            Some(())
        },
    },
    Key {
        name: "zram.algorithm",
        accepts: "the name of an algorithm, such as zstd or lz4",
        set: |options, value| {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let name = value.filter(|name| !name.is_empty() && name.iter().all(plain))?;
            options.zram_algorithm = Some(core::str::from_utf8(name).ok()?.to_string());
            Some(())
        },
    },
    Key {
        name: "zram.limit",
        accepts: "a size such as 256m, or a percentage such as 50%",
        set: |options, value| {
            options.zram_limit = Some(positive(value?)?);
            Some(())
        },
    },
    Key {
        name: "payload",
        accepts: "sha256: and 64 lowercase hexadecimal digits",
        set: |options, value| {
            // Digests add up: the command line can require more than the file, never less.
            let digest = value.and_then(|text| text.strip_prefix(b"sha256:")).and_then(index::hexadecimal);
            options.payload.push(digest);
            digest.map(drop)
        },
    },
    Key {
        name: "payload.overlay",
        accepts: "yes or no",
        set: |options, value| {
            options.payload_overlay = switch(value)?;
            Some(())
        },
    },
];

/// Parses a flag; a flag without a value is on.
pub(super) fn switch(value: Option<&[u8]>) -> Option<bool> {
    match value {
        None | Some(b"yes" | b"1" | b"on" | b"true") => Some(true),
        Some(b"no" | b"0" | b"off" | b"false") => Some(false),
        Some(_) => None,
    }
}

/// Parses an absolute path.
fn path(value: Option<&[u8]>) -> Option<Vec<u8>> {
    value.filter(|path| path.starts_with(b"/") && !path.contains(&0)).map(<[u8]>::to_vec)
}

/// Parses permission bits.
fn octal(text: &[u8]) -> Option<u32> {
    u32::from_str_radix(core::str::from_utf8(text).ok()?, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// Parses a decimal number, without a sign.
fn number(text: &[u8]) -> Option<u64> {
    core::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// Parses an amount that is not 0.
fn positive(text: &[u8]) -> Option<Amount> {
    amount(text).filter(|amount| !matches!(amount, Amount::Exactly(0) | Amount::Percent(0)))
}

/// Parses a size or count with a unit k, m, g or t, or a percentage.
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
