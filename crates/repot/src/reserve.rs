//! Makes the kernel release its memory reserves for the duration of a move.
//!
//! Whenever the kernel takes a page from blocks of another type, it raises its watermark, by several MiB on a
//! small machine (`boost_watermark`, mm/page_alloc.c), until kswapd has reclaimed that much. Each CPU also
//! keeps freed pages on its own lists, and other CPUs get these only after reclaim. A tree on a tmpfs without
//! swap leaves nothing to reclaim, so that memory stays out of reach.
//!
//! The kernel also keeps the last 2 MiB for interrupts, for reclaim and for devices that reach only low
//! addresses; it kills a process rather than touch them. On a machine that is just large enough, these
//! reserves decide whether the move succeeds.

use alloc::vec::Vec;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::pwrite;

use crate::error::retry_once;
use crate::site::read_whole;

/// The sysctls to change: no boost; the shortest per-CPU page lists (since 5.14); nothing for low addresses;
/// little for interrupts: [`kept_free`].
const SETTINGS: [(&str, &[u8]); 4] = [
    ("sys/vm/watermark_boost_factor", b"0"),
    ("sys/vm/percpu_pagelist_high_fraction", b"1000000"),
    ("sys/vm/lowmem_reserve_ratio", b"0 0"),
    ("sys/vm/min_free_kbytes", b""),
];

/// Sysctls that are restored when this is dropped. Their files stay open, because opening one takes memory
/// that may not be available then.
pub(crate) struct Reserve(Vec<(OwnedFd, Vec<u8>)>);

impl Reserve {
    /// Changes the sysctls. One that cannot be changed is skipped. If the tree can be paged out (`paging`),
    /// the kernel keeps what it needs for that: paging out to zram takes memory before it frees any.
    pub(crate) fn release(proc: BorrowedFd<'_>, paging: bool, page: u64) -> Self {
        let settings = if paging { &SETTINGS[..3] } else { &SETTINGS[..] };
        let change = |&(name, mut value): &(&str, &'static [u8])| {
            let file = openat(proc, name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let original = read_whole(&file, 64).ok()?;
            if value.is_empty() {
                value = kept_free(&original, page)?;
            }
            pwrite(&file, value, 0).ok()?;
            Some((file, original))
        };
        Reserve(settings.iter().filter_map(change).collect())
    }
}

/// The least that the kernel keeps free, in KiB: 64 pages, because an interrupt takes pages, whatever their
/// size. `None` if it keeps no more now.
fn kept_free(now: &[u8], page: u64) -> Option<&'static [u8]> {
    let least: &[u8] = match page {
        4096 => b"256",
        16_384 => b"1024",
        _ => b"4096",
    };
    // Numbers without leading zeros.
    let now = now.trim_ascii();
    ((now.len(), now) > (least.len(), least)).then_some(least)
}

impl Drop for Reserve {
    fn drop(&mut self) {
        for (file, original) in &self.0 {
            let _ = retry_once(|| pwrite(file, original, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_has_the_same_number_of_pages_everywhere_and_never_grows() {
        let kept = |now: &'static str, page| kept_free(now.as_bytes(), page);
        assert_eq!(kept("2896\n", 4096), Some(&b"256"[..]));
        assert_eq!(kept("22528\n", 16 << 10), Some(&b"1024"[..]));
        assert_eq!(kept("22528\n", 64 << 10), Some(&b"4096"[..]));
        for now in ["2896\n", "4096\n", "900\n", ""] {
            assert_eq!(kept(now, 64 << 10), None, "{now}");
        }
    }
}
