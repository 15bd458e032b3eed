//! Evidence of whether the kernel unpacked the whole initramfs.
//!
//! If a write fails, the kernel logs it and boots what it has unpacked. If inodes run out it logs nothing, and a truncated
//! archive may look complete to it. So the log is searched, and the markers of `repot pack` are read.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::retry_once;
use crate::site::Site;
use crate::sys;

/// What the first member of an archive with an end marker is called.
pub const BEGIN: &str = ".repot-begin";
/// The end marker.
pub const END: &str = ".repot-end";

/// What is known about the unpacking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacking {
    /// What the kernel logged about it, in its words.
    pub complaints: Vec<String>,
    /// Whether the archive promises an end marker.
    pub begun: bool,
    /// The end marker, if it exists and is complete.
    pub end: Option<Marker>,
}

/// The end marker: what the archive says about itself in its last member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    /// The number of members, `.` included, the marker excluded.
    pub entries: u64,
    /// The sum of the sizes of its files, in bytes.
    pub bytes: u64,
}

/// The kernel's log is larger only if someone asked for that (`log_buf_len=`). In bytes.
const LOG: usize = 1 << 20;
/// A marker is four short lines. In bytes.
const MARKER: usize = 4096;

/// Collects the evidence.
pub(super) fn look(site: &Site) -> Unpacking {
    let log = if site.machine() { sys::kernel_log(LOG).unwrap_or_default() } else { Vec::new() };
    // Without an end marker nothing is booted, so reading it is tried twice.
    let file = |name| retry_once(|| site.root_file(name, MARKER)).ok().flatten();
    Unpacking {
        complaints: complaints(&log),
        begun: file(BEGIN).is_some(),
        end: file(END).and_then(|text| marker(&text)),
    }
}

/// The kernel's complaints about the initramfs in its log, in the words of `do_populate_rootfs` (init/initramfs.c).
pub fn complaints(log: &[u8]) -> Vec<String> {
    let known = |line: &[u8]| {
        let find = |text: &[u8]| line.windows(text.len()).position(|window| window == text);
        let start =
            find(b"Initramfs unpacking failed: ").or_else(|| find(b"rootfs image is not initramfs ("))?;
        Some(format!("{}", line[start..].escape_ascii()))
    };
    log.split(|byte| *byte == b'\n').filter_map(known).take(8).collect()
}

/// Parses an end marker; `None` if it is truncated.
pub fn marker(text: &[u8]) -> Option<Marker> {
    let mut marker = Marker::default();
    let mut format = false;
    // A line without its line feed is truncated.
    for line in text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n")) {
        let at = line.iter().position(|byte| *byte == b'=')?;
        let number = || core::str::from_utf8(&line[at + 1..]).ok()?.parse::<u64>().ok();
        match &line[..at] {
            b"format" => format = number()? == 1,
            b"entries" => marker.entries = number()?,
            b"bytes" => marker.bytes = number()?,
            _ => {}
        }
    }
    format.then_some(marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_words_are_found_in_any_log_format() {
        let log = b"<6>[    0.4] Trying to unpack rootfs image as initramfs...\n<0>[    1.2] Initramfs unpacking failed: write error\nx rootfs image is not initramfs (junk); looks like an initrd\n";
        let found = complaints(log);
        assert_eq!(found[0], "Initramfs unpacking failed: write error");
        assert!(found[1].starts_with("rootfs image is not initramfs (junk)"));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_marker_that_was_cut_off_is_none() {
        let whole = b"format=1\nentries=12\nbytes=3456\ninodes=11\n";
        assert_eq!(marker(whole), Some(Marker { entries: 12, bytes: 3456 }));
        assert_eq!(marker(b""), None);
        assert_eq!(marker(b"entries=12\n"), None);
        assert_eq!(marker(b"format=1"), None);
        assert_eq!(marker(b"format=one\n"), None);
        assert_eq!(marker(b"format=1\nentries=99999999999999999999\n"), None);
    }
}
