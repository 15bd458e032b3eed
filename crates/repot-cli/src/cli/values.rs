//! The values of options that clap does not know.

use std::time::Duration;

use repot::payload::index::Pages;
use repot::run::OnExit;

/// The OCI name of this machine's architecture.
pub(super) fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// A time with a unit: s (the default), m or h.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let seconds = digits.parse::<u32>().ok().filter(|number| *number > 0);
    seconds
        .map(|number| Duration::from_secs(u64::from(number) * unit))
        .ok_or("must be a time such as 90s, 5m or 1h")
}

/// Two ports.
pub(super) fn publish(text: &str) -> Result<(u16, u16), &'static str> {
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
    let ports = text.split_once(':').and_then(|(here, guest)| Some((port(here)?, port(guest)?)));
    ports.ok_or("must be two ports, such as 8080:80")
}

/// The size of a page.
pub(super) fn page_size(text: &str) -> Result<u64, &'static str> {
    let size = crate::report::size::parse(text).ok().filter(|size| Pages::SIZES.contains(size));
    size.ok_or("must be 4k, 16k or 64k")
}

/// An owner and a group as numbers.
pub(super) fn owner(text: &str) -> Result<(u32, u32), &'static str> {
    let number = |text: &str| text.parse().ok().filter(|id| *id != u32::MAX);
    let ids = text.split_once(':').and_then(|(uid, gid)| Some((number(uid)?, number(gid)?)));
    ids.ok_or("must be two numbers, such as 0:0")
}

pub(super) fn absolute(path: &str) -> Result<String, &'static str> {
    let plain = path.starts_with('/')
        && path.len() > 1
        && path.split('/').skip(1).all(|name| !matches!(name, "" | "." | ".."));
    if plain {
        Ok(path.to_string())
    } else {
        Err("must be an absolute path without . and .., such as /repot")
    }
}

/// What happens when a program has ended.
pub(super) fn onexit(text: &str) -> Result<OnExit, &'static str> {
    let known = OnExit::NAMES.iter().find(|(name, _)| *name == text);
    known.map(|(_, onexit)| *onexit).ok_or("must be poweroff, reboot, panic, shell or restart")
}

/// Where contents begin in an archive.
pub(super) fn alignment(text: &str) -> Result<u32, &'static str> {
    let number =
        text.parse().ok().filter(|number: &u32| number.is_power_of_two() && (4..=1 << 20).contains(number));
    number.ok_or("must be a power of two from 4 to 1048576, such as 4096")
}
