//! Keeps the kernel from holding memory back while there is nothing it could reclaim.
//!
//! With every allocation that has to be taken from blocks meant for another kind, the kernel raises what it wants to have free, by
//! several MiB in a small machine (`boost_watermark`, mm/page_alloc.c), until kswapd has reclaimed that much; and each processor keeps
//! pages that were freed on it, which the other is given only after something was reclaimed. In a tree on a tmpfs without swap there
//! is nothing to reclaim, and the memory stays out of reach. The last two MiB it keeps for interrupts, for what reclaims, and for
//! devices that reach only low addresses, and ends a process rather than touch them. On a machine that is just large enough all that
//! is the difference.

use alloc::vec::Vec;

use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, write};

use crate::facts::read_whole;

/// What is set meanwhile: no boost; the shortest lists of pages for each processor (from 5.14 on); little for interrupts; nothing for
/// low addresses.
const SETTINGS: [(&str, &[u8]); 4] = [
    ("sys/vm/watermark_boost_factor", b"0"),
    ("sys/vm/percpu_pagelist_high_fraction", b"1000000"),
    ("sys/vm/min_free_kbytes", b"256"),
    ("sys/vm/lowmem_reserve_ratio", b"0 0"),
];

/// Put back when dropped.
pub(crate) struct Reserve<'a> {
    proc: BorrowedFd<'a>,
    were: Vec<(&'static str, Vec<u8>)>,
}

impl<'a> Reserve<'a> {
    /// Sets them. Where that cannot be done, all is as it was.
    pub(crate) fn release(proc: BorrowedFd<'a>) -> Self {
        let change = |(name, value): (&'static str, &[u8])| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = openat(proc, name, flags, Mode::empty()).ok()?;
            let was = read_whole(&file, 64).ok()?;
            set(proc, name, value).ok()?;
            Some((name, was))
        };
        Reserve { proc, were: SETTINGS.into_iter().filter_map(change).collect() }
    }
}

impl Drop for Reserve<'_> {
    fn drop(&mut self) {
        for (name, was) in &self.were {
            let _ = set(self.proc, name, was);
        }
    }
}

fn set(proc: BorrowedFd<'_>, name: &str, value: &[u8]) -> Result<(), Errno> {
    let file = openat(proc, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write(&file, value).map(drop)
}
