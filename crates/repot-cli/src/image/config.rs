//! `/etc/repot.conf`: `KEY=VALUE` lines for the init, checked when an image is built.

use std::fmt;

use anyhow::{Result, bail, ensure};
use repot::options::{Amount, Options, keys};

/// Its path in an image.
pub const PATH: &str = "etc/repot.conf";

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// The value; empty for a flag of tmpfs such as `noswap`.
    pub value: String,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            return f.write_str(&self.key);
        }
        write!(f, "{}={}", self.key, self.value)
    }
}

/// Parses the argument of `--config`: `KEY=VALUE`, or a flag of tmpfs. It must not make the init warn.
pub fn parse(text: &str) -> Result<Setting> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let setting = Setting { key: key.trim().to_string(), value: value.trim().to_string() };
    let line = setting.to_string();
    ensure!(!line.contains(['\n', '\0']), "a setting must be a single line");
    ensure!(
        !setting.key.is_empty() && !line.starts_with('#'),
        "a setting has the form KEY=VALUE, such as size=70%"
    );
    if !keys().any(|(key, _)| key == setting.key.replace('-', "_")) {
        bail!("unknown key {}: {}", setting.key, hint(&setting.key));
    }
    if let Some(warning) = Options::read(Some(line.as_bytes()), &[]).warnings.first() {
        bail!("{}", warning.trim_start_matches("/etc/repot.conf:1: "));
    }
    if let Some(Amount::Percent(percent @ 101..)) = Options::read(Some(line.as_bytes()), &[]).size {
        bail!("size={percent}% is more than all memory");
    }
    Ok(setting)
}

/// What the user may have meant by an unknown key.
fn hint(unknown: &str) -> String {
    let nearest = keys().map(|(key, accepts)| (distance(unknown, key), key, accepts)).min();
    match nearest {
        Some((0..=2, key, accepts)) => format!("did you mean {key}, which accepts {accepts}?"),
        _ => format!("known are {}", keys().map(|(key, _)| key).collect::<Vec<_>>().join(", ")),
    }
}

/// The number of letters to insert, remove or replace (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (number, letter) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], number + 1);
        for (at, theirs) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(letter != theirs);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// The text of the file with the key set: the last line, and the only one with this key.
#[must_use]
pub fn set(text: &str, setting: &Setting) -> String {
    let line = setting.to_string();
    let mut lines: Vec<&str> = text.lines().filter(|line| key(line) != Some(&setting.key)).collect();
    lines.push(&line);
    lines.join("\n") + "\n"
}

fn key(line: &str) -> Option<&str> {
    let line = line.trim();
    (!line.is_empty() && !line.starts_with('#'))
        .then(|| line.split_once('=').map_or(line, |(key, _)| key.trim()))
}

#[cfg(test)]
mod tests {
    use repot::options::Mode;

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
            "noswap=maybe",
            "init=init",
            "threads=0",
            "sise=1",
            "size=101%",
            "size=700%",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_a_hint() {
        let error = |text| parse(text).unwrap_err().to_string();
        assert!(error("sise=1g").contains("did you mean size, which accepts a size"), "{}", error("sise=1g"));
        assert!(error("contxt=a").contains("did you mean context"));
        assert!(error("color=red").contains("known are cmdline, mode, size"));
        assert_eq!((distance("abc", "abc"), distance("abc", "axcd"), distance("", "ab")), (0, 2, 2));
    }

    /// The manual page is written by hand, from the same table.
    #[test]
    fn the_manual_page_has_every_key() {
        let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/man/repot.conf.5"));
        let items: Vec<&str> = page.lines().filter(|line| line.starts_with(".It Cm ")).collect();
        for (key, _) in keys() {
            let is = |item: &&str| item.split([' ', ',']).any(|word| word == key);
            assert!(items.iter().any(is), "docs/man/repot.conf.5 lacks {key}");
        }
    }

    #[test]
    fn a_key_is_set_once_and_the_rest_is_kept() {
        let text = set("# ours\nmode=move\nsize=1g\n", &parse("mode=bind").unwrap());
        assert_eq!(text, "# ours\nsize=1g\nmode=bind\n");
        let options = Options::read(Some(text.as_bytes()), &[]);
        assert_eq!((options.mode, options.init), (Mode::Bind, None));
    }
}
