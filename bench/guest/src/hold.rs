//! Holds memory while another program runs, so that all free memory is in the same state.

use crate::sys::Pages;
use crate::{Done, say};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use std::fs::File;
use std::io::{Read, Write, stdin};
use std::time::{Duration, Instant};

/// The pages of what sendfile writes at once, as a power of two.
const FOLIO: usize = 4;
/// Bytes that are taken at once while timing, and how many of these must be slow in a row.
const PIECE: usize = 2 << 20;
const ROW: usize = 32;

/// Bytes that are left if everything is taken, because the kernel needs some.
const SPARE: usize = 128 << 20;
/// More than the larger pieces that can be left.
const MOST: usize = 1 << 30;

/// Holds memory until the other end of standard input is closed. "warm" leaves at least `rest` bytes free.
pub(crate) fn hold(what: &str, rest: &str) -> Done {
    let rest: usize = rest.parse()?;
    // If memory runs out, the kernel must kill this process first.
    std::fs::write("/proc/self/oom_score_adj", "1000")?;
    let held = match what {
        "warm" => (warm(free(0..usize::MAX)?.saturating_sub(rest))?, None),
        "alternate" => {
            let mut pages = Pages::take(free(0..usize::MAX)?.saturating_sub(SPARE))?;
            pages.give_back_alternate()?;
            (vec![pages], Some(folios()?))
        }
        _ => return Err("\"warm\" or \"alternate\"".into()),
    };
    say(&format!("larger {}", free(FOLIO..usize::MAX)?))?;
    stdin().read_to_end(&mut Vec::new())?;
    drop(held);
    Ok(())
}

/// Takes memory until touching it becomes slow: the kernel first hands out what need not come from the host.
fn warm(most: usize) -> std::io::Result<Vec<Pages>> {
    let mut held = Vec::new();
    let mut least = Duration::MAX;
    let mut slow = 0;
    while held.len() * PIECE < most && slow < ROW {
        let start = Instant::now();
        held.push(Pages::take(PIECE)?);
        let taken = start.elapsed();
        least = least.min(taken);
        slow = if taken > least * 2 { slow + 1 } else { 0 };
    }
    Ok(held)
}

/// Bytes that are free in pieces of this many pages, as a power of two.
fn free(orders: std::ops::Range<usize>) -> std::io::Result<usize> {
    let mut bytes = 0;
    for line in std::fs::read_to_string("/proc/buddyinfo")?.lines() {
        // Node 0, zone Normal 1 2 3 …
        for (order, count) in line.split_ascii_whitespace().skip(4).enumerate() {
            if orders.contains(&order) {
                bytes += count.parse::<usize>().unwrap_or(0) << (12 + order);
            }
        }
    }
    Ok(bytes)
}

/// A file that takes the remaining larger pieces.
fn folios() -> Result<File, Box<dyn std::error::Error + Send + Sync>> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "huge", "within_size")?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mut file = File::from(openat(&mount, c".", flags, Mode::RUSR | Mode::WUSR)?);
    let piece = vec![1; 4096 << FOLIO];
    let mut written = 0;
    while written < MOST && free(FOLIO..usize::MAX)? > piece.len() {
        file.write_all(&piece)?;
        written += piece.len();
    }
    Ok(file)
}
