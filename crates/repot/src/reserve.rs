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

/// The sysctls to change: no boost; the shortest per-CPU page lists (since 5.14); little for interrupts;
/// nothing for low addresses.
const SETTINGS: [(&str, &[u8]); 4] = [
    ("sys/vm/watermark_boost_factor", b"0"),
    ("sys/vm/percpu_pagelist_high_fraction", b"1000000"),
    ("sys/vm/lowmem_reserve_ratio", b"0 0"),
    ("sys/vm/min_free_kbytes", b"256"),
];

/// Sysctls that are restored when this is dropped. Their files stay open, because opening one takes memory
/// that may not be available then.
pub(crate) struct Reserve(Vec<(OwnedFd, Vec<u8>)>);

impl Reserve {
    /// Changes the sysctls. One that cannot be changed is skipped. If the tree can be paged out (`paging`),
    /// the kernel keeps what it needs for that: paging out to zram takes memory before it frees any.
    pub(crate) fn release(proc: BorrowedFd<'_>, paging: bool) -> Self {
        let settings = if paging { &SETTINGS[..3] } else { &SETTINGS[..] };
        let change = |&(name, value): &(&str, &[u8])| {
            let file = openat(proc, name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let original = read_whole(&file, 64).ok()?;
            pwrite(&file, value, 0).ok()?;
            Some((file, original))
        };
        Reserve(settings.iter().filter_map(change).collect())
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        for (file, original) in &self.0 {
            let _ = retry_once(|| pwrite(file, original, 0));
        }
    }
}
