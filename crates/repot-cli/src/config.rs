//! `/etc/repot.conf`: `KEY=VALUE` lines that the init reads, checked here so that a typing error is found when an image is built.

use anyhow::{Result, bail};

/// Where it is in an image.
pub const PATH: &str = "etc/repot.conf";

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// What is set.
    pub key: String,
    /// To what.
    pub value: String,
}

const CHOICES: &[(&str, &[&str])] = &[
    ("mode", &["auto", "move", "bind", "stay"]),
    ("onerror", &["continue", "shell", "reboot", "poweroff", "halt"]),
    ("truncated", &["stop", "continue"]),
    ("log", &["quiet", "info", "debug"]),
    ("cmdline", &["ignore"]),
    ("wipe", &["yes", "no"]),
    ("huge", &["never", "always", "within_size", "advise"]),
];

/// Options of tmpfs that take no value.
const FLAGS: &[&str] = &["noswap", "inode32", "inode64", "usrquota", "grpquota"];

/// `KEY=VALUE` or a tmpfs flag alone, as given to `--config`.
pub fn parse(text: &str) -> Result<Setting> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let setting = Setting { key: key.trim().to_string(), value: value.trim().to_string() };
    check(&setting.key, &setting.value, text.contains('='))?;
    Ok(setting)
}

fn check(key: &str, value: &str, given: bool) -> Result<()> {
    if value.contains(['\n', '\0']) {
        bail!("{key}: a value is one line");
    }
    if let Some((_, choices)) = CHOICES.iter().find(|(name, _)| *name == key) {
        if !choices.contains(&value) {
            bail!("{key}={value}: not one of {}", choices.join(", "));
        }
        return Ok(());
    }
    if FLAGS.contains(&key) {
        if given && !value.is_empty() {
            bail!("{key} takes no value");
        }
        return Ok(());
    }
    let (good, what) = match key {
        "size" => (is_size(value, true), "a number with k, m, g or %, as size= in tmpfs(5)"),
        "nr_inodes" => (is_size(value, false), "a number with k, m or g, as nr_inodes= in tmpfs(5)"),
        "init" => (value.starts_with('/'), "an absolute path"),
        "threads" => (value.parse::<u32>().is_ok_and(|threads| threads > 0), "a number from 1 on"),
        "mpol" => (!value.is_empty(), "a memory policy, as mpol= in tmpfs(5)"),
        _ => {
            let names: Vec<_> = CHOICES.iter().map(|(name, _)| *name).collect();
            bail!(
                "{key}: no such key. There are {}, size, nr_inodes, mpol, init, threads, {}",
                names.join(", "),
                FLAGS.join(", ")
            );
        }
    };
    if !good {
        bail!("{key}={value}: {key} is {what}");
    }
    Ok(())
}

fn is_size(value: &str, percent: bool) -> bool {
    let suffixes: &[char] =
        if percent { &['k', 'K', 'm', 'M', 'g', 'G', '%'] } else { &['k', 'K', 'm', 'M', 'g', 'G'] };
    let digits = value.strip_suffix(suffixes).unwrap_or(value);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The file with a key's line changed, or added when there is none.
#[must_use]
pub fn set(text: &str, setting: &Setting) -> String {
    let line = if setting.value.is_empty() {
        setting.key.clone()
    } else {
        format!("{}={}", setting.key, setting.value)
    };
    let mut lines: Vec<&str> = text.lines().filter(|line| key(line) != Some(&setting.key)).collect();
    lines.push(&line);
    lines.join("\n") + "\n"
}

/// The value of a key in the file: the last one counts.
#[must_use]
pub fn get<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    let line = text.lines().rfind(|line| key(line) == Some(wanted))?;
    Some(line.split_once('=').map_or("", |(_, value)| value.trim()))
}

fn key(line: &str) -> Option<&str> {
    let line = line.trim();
    (!line.is_empty() && !line.starts_with('#'))
        .then(|| line.split_once('=').map_or(line, |(key, _)| key.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        for good in
            ["mode=bind", "size=60%", "size=512m", "nr_inodes=0", "noswap", "init=/sbin/init", "threads=2"]
        {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "mode=fast",
            "size=lots",
            "size=",
            "nr_inodes=50%",
            "noswap=1",
            "init=init",
            "threads=0",
            "sise=1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_set_once_and_the_rest_is_kept() {
        let text = set("# ours\nmode=move\nsize=1g\n", &parse("mode=bind").unwrap());
        assert_eq!(text, "# ours\nsize=1g\nmode=bind\n");
        assert_eq!(get(&text, "mode"), Some("bind"));
        assert_eq!(get(&text, "init"), None);
    }
}
