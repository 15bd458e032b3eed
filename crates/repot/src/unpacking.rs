//! Whether the kernel unpacked the whole initramfs.
//!
//! Where it could not write, it says so in its log and boots what there is; where inodes run out it says nothing at all; and an
//! archive that was cut off it may take for a whole one. So the log is read, the room is looked at, and an image that
//! `repot pack` made is compared with what it says of itself.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::facts::{Facts, Room, RootFs, Site};
use crate::report::Bytes;
use crate::sys;

/// What the first member of an archive with an end marker is called.
pub const BEGIN: &str = ".repot-begin";
/// The end marker.
pub const END: &str = ".repot-end";

/// What is known of the unpacking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacking {
    /// What the kernel complained of, in its words.
    pub complaints: Vec<String>,
    /// Whether the archive promises an end marker.
    pub begun: bool,
    /// The end marker, where it is there and whole.
    pub end: Option<Marker>,
}

/// What an archive says of itself in its last member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marker {
    /// How many members it has, the marker itself not counted, `.` counted.
    pub entries: u64,
    /// The sum of the sizes of its files, in bytes.
    pub bytes: u64,
}

/// The kernel's log is larger only where someone asked for that.
const LOG: usize = 1 << 20;
/// A marker is four short lines.
const MARKER: usize = 4096;

/// Looks.
pub(crate) fn look(site: &Site) -> Unpacking {
    let log = if site.machine() { sys::kernel_log(LOG).unwrap_or_default() } else { Vec::new() };
    // An end that cannot be read is as good as none, and then nothing is booted: it is worth a second look.
    let again = |name| site.root_file(name, MARKER).or_else(|_| site.root_file(name, MARKER));
    let file = |name| again(name).ok().flatten();
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

/// Reads an end marker; `None` where it was cut off.
pub fn marker(text: &[u8]) -> Option<Marker> {
    let mut marker = Marker::default();
    let mut format = false;
    // A line without its end was cut off.
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

/// What is missing, in a clause; `None` where nothing is known to be.
pub fn missing(facts: &Facts) -> Option<String> {
    if let Some(shortage) = shortage(facts) {
        return Some(shortage);
    }
    let Unpacking { complaints, begun, end } = &facts.unpacking;
    let found = &facts.survey;
    let mut missing = match end {
        None if *begun => "the archive has no end".to_string(),
        // The survey counts the marker and not the root, the marker the root and not itself.
        Some(end) if found.entries < end.entries || found.bytes < end.bytes => format!(
            "the archive has {} entries and {}, of which {} entries and {} are there",
            end.entries,
            Bytes(end.bytes),
            found.entries,
            Bytes(found.bytes)
        ),
        _ => return None,
    };
    for complaint in complaints {
        missing.push_str(&format!("; the kernel said \"{complaint}\""));
    }
    Some(missing)
}

/// What the kernel had no room for.
fn shortage(facts: &Facts) -> Option<String> {
    if let Some(complaint) =
        facts.unpacking.complaints.iter().find(|complaint| complaint.contains("write error"))
    {
        return Some(format!("the kernel said \"{complaint}\""));
    }
    let Room { size, free, inodes, free_inodes } = facts.room;
    if facts.rootfs == RootFs::Tmpfs && size > 0 && free == 0 {
        return Some(format!("the root is full: all of its {} are used", Bytes(size)));
    }
    if facts.rootfs == RootFs::Tmpfs && inodes > 0 && free_inodes == 0 {
        return Some(format!("the root is full: all of its {inodes} inodes are used"));
    }
    None
}

/// What helps, for the message.
pub fn cures(facts: &Facts) -> String {
    let memory = Bytes(facts.memory.total);
    let image =
        if shortage(facts).is_none() { "an image that is whole, if this one was cut off; " } else { "" };
    let (cap, options) = if facts.rootfs == RootFs::Tmpfs {
        let Room { size, inodes, .. } = facts.room;
        (
            format!(", and the root is a tmpfs of at most {} and {inodes} inodes", Bytes(size)),
            "; rootfstype=ramfs on the kernel command line, which has no cap; or initramfs_options=size=90%,nr_inodes=0 (6.18, \
             and stable kernels from October 2025 on)",
        )
    } else {
        (String::new(), "")
    };
    format!(
        "MemTotal is {memory}{cap}. What helps: {image}more memory{options}. truncated=continue boots what there is"
    )
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
