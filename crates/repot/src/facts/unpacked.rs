//! Evidence of whether the kernel unpacked the whole initramfs.
//!
//! If a write fails, the kernel logs it and boots what it has unpacked. If inodes run out it logs nothing,
//! and a truncated archive may look complete to it. So the log is searched, and the markers of `repot pack`
//! are read.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::retry_once;
use crate::marker::{self, Totals};
use crate::site::Site;
use crate::sys;

/// What is known about the unpacking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacking {
    /// What the kernel logged about it, in its words.
    pub complaints: Vec<String>,
    /// Whether the archive promises an end marker.
    pub begun: bool,
    /// The end marker, if it exists and is complete.
    pub end: Option<Totals>,
}

/// The kernel's log is larger only if someone asked for that (`log_buf_len=`). In bytes.
const LOG: usize = 1 << 20;
/// The end marker is four short lines. In bytes.
const MARKER: usize = 4096;

/// Collects the evidence.
pub(super) fn look(site: &Site) -> Unpacking {
    let log = if site.machine() { sys::kernel_log(LOG).unwrap_or_default() } else { Vec::new() };
    // Without an end marker nothing is booted, so reading it is tried twice.
    let file = |name| retry_once(|| site.root_file(name, MARKER)).ok().flatten();
    Unpacking {
        complaints: complaints(&log),
        begun: file(marker::BEGIN).is_some(),
        end: file(marker::END).and_then(|text| Totals::parse(&text)),
    }
}

/// The kernel's complaints about the initramfs in its log, in the words of `do_populate_rootfs`
/// (init/initramfs.c).
pub fn complaints(log: &[u8]) -> Vec<String> {
    let known = |line: &[u8]| {
        let find = |text: &[u8]| line.windows(text.len()).position(|window| window == text);
        let start =
            find(b"Initramfs unpacking failed: ").or_else(|| find(b"rootfs image is not initramfs ("))?;
        Some(format!("{}", line[start..].escape_ascii()))
    };
    log.split(|byte| *byte == b'\n').filter_map(known).take(8).collect()
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
}
