//! Keeps the kernel from holding memory back while there is nothing it could reclaim.
//!
//! With every allocation that has to be taken from blocks meant for another kind, the kernel raises what it wants to have free, by
//! several MiB in a small machine (`boost_watermark`, mm/page_alloc.c), until kswapd has reclaimed that much; and each processor keeps
//! pages that were freed on it, which the other is given only after something was reclaimed. In a tree on a tmpfs without swap there
//! is nothing to reclaim, and the memory stays out of reach. The last two MiB it keeps for interrupts, for what reclaims, and for
//! devices that reach only low addresses, and ends a process rather than touch them. On a machine that is just large enough all that
//! is the difference.

use alloc::vec::Vec;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::pwrite;

use crate::error::retry_once;
use crate::site::read_whole;

/// What is set meanwhile: no boost; the shortest lists of pages for each processor (from 5.14 on); little for interrupts; nothing for
/// low addresses.
const SETTINGS: [(&str, &[u8]); 4] = [
    ("sys/vm/watermark_boost_factor", b"0"),
    ("sys/vm/percpu_pagelist_high_fraction", b"1000000"),
    ("sys/vm/min_free_kbytes", b"256"),
    ("sys/vm/lowmem_reserve_ratio", b"0 0"),
];

/// Put back when dropped. The files stay open, since to open one takes memory, and then there may be none.
pub(crate) struct Reserve(Vec<(OwnedFd, Vec<u8>)>);

impl Reserve {
    /// Sets them. Where one cannot be set, it is as it was.
    pub(crate) fn release(proc: BorrowedFd<'_>) -> Self {
        let change = |(name, value): (&str, &[u8])| {
            let file = openat(proc, name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let was = read_whole(&file, 64).ok()?;
            pwrite(&file, value, 0).ok()?;
            Some((file, was))
        };
        Reserve(SETTINGS.into_iter().filter_map(change).collect())
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        for (file, was) in &self.0 {
            let _ = retry_once(|| pwrite(file, was, 0));
        }
    }
}
