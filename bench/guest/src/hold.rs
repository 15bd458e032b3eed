//! Memory that is held while something else runs, so that all that is free is of one kind.

use crate::sys::Pages;
use crate::{Done, say};
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use std::fs::File;
use std::io::{Read, Write, stdin};
use std::time::{Duration, Instant};

/// Pages of 4 KiB in what sendfile writes at once, as a power of two.
const FOLIO: usize = 4;
/// What is taken at once where it is timed, and how many of these in a row must be slow.
const PIECE: usize = 2 << 20;
const ROW: usize = 32;

/// Left where everything is taken: the kernel needs some.
const SPARE: usize = 128 << 20;
/// More than there can be left of larger pieces.
const MOST: usize = 1 << 30;

/// Holds what is asked for until nobody is at the other end of the input; "warm" leaves at least so many bytes free.
pub(crate) fn hold(what: &str, rest: &str) -> Done {
    let rest: usize = rest.parse()?;
    // Where memory runs out, this is what is to end.
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

/// Takes memory until it takes the host's time to touch it: what the machine has at hand comes first.
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

/// Bytes that are free in pieces of so many pages, by their logarithm.
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

/// A file that has the larger pieces that are left.
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
