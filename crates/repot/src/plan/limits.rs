//! The size and inode limits of the new tmpfs.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::facts::{Capacity, Facts, RootFs};
use crate::options::{Amount, Options};

/// The options of the new tmpfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tmpfs {
    /// `size=`; `None` for the kernel's default, half of the memory.
    pub size: Option<String>,
    /// `nr_inodes=`; `None` for the kernel's default.
    pub nr_inodes: Option<String>,
    /// Further options, which the kernel may refuse; `None` for flags.
    pub more: Vec<(String, Option<String>)>,
}

/// The limits that a bind mount sets on the old root: only what is configured, because a size that was
/// computed for a move says nothing about a root that stays; and nothing below what is in use. A warning says
/// what is skipped.
pub(super) fn bound(facts: &Facts, options: &Options) -> (Tmpfs, Vec<String>) {
    let capacity = &facts.capacity;
    let used = |limit: u64, free: u64| limit - free.min(limit);
    let bytes = used(capacity.size, capacity.free).max(facts.survey.bytes);
    let inodes = used(capacity.inodes, capacity.free_inodes).max(facts.survey.entries + 1);
    let mut warnings = Vec::new();
    let mut check = |key: &str, (text, limit): (String, u64), used: u64| {
        if limit == 0 || limit >= used {
            return Some(text);
        }
        warnings.push(format!("{key}={text} ignored: {used} are in use, and the root stays where it is"));
        None
    };
    let (size, nr_inodes) = asked(options);
    let size = size.and_then(|size| check("size", amount(size, facts.memory.total), bytes));
    let nr_inodes = nr_inodes.and_then(|number| check("nr_inodes", count(number), inodes));
    (Tmpfs { size, nr_inodes, more: Vec::new() }, warnings)
}

/// The limits that are configured, else those that the initial root was asked for.
fn asked(options: &Options) -> (Option<Amount>, Option<Amount>) {
    (options.size.or(options.initial_size), options.nr_inodes.or(options.initial_nr_inodes))
}

/// A configured size, as the kernel reads it and in bytes.
fn amount(size: Amount, total: u64) -> (String, u64) {
    match size {
        Amount::Exactly(limit) => (format!("{limit}"), limit),
        // Divided first, so that no percentage overflows.
        Amount::Percent(percent) => (format!("{percent}%"), (total / 100).saturating_mul(percent).max(1)),
    }
}

/// A configured number of inodes.
fn count(number: Amount) -> (String, u64) {
    let (Amount::Exactly(limit) | Amount::Percent(limit)) = number;
    (format!("{limit}"), limit)
}

/// In addition to one eighth of all memory, this much must be available for several threads and large folios,
/// in bytes. The kernel may keep up to that eighth of the freed memory as single pages on the CPU that freed
/// them (`pcp->high_max`, since 6.7). On a machine of 296 MiB it kept 23 MiB, more than was left.
pub(super) const PLENTY: u64 = 64 << 20;

/// The options of a tmpfs that the tree fits in, and an error if it exceeds a configured limit.
pub(super) fn tmpfs(facts: &Facts, options: &Options) -> (Tmpfs, Result<(), String>) {
    let survey = &facts.survey;
    let total = facts.memory.total;
    let bytes = survey.bytes + survey.long_symlinks * facts.page;
    // Each name is charged as an inode, and so is the staged link of each inode with several names during the
    // move. `used` includes extended attributes, which tmpfs charges as inodes.
    let counted = survey.entries + 1;
    let used = facts.capacity.inodes - facts.capacity.free_inodes.min(facts.capacity.inodes);
    let inodes = counted.max(used) + survey.hard_links / 2 + facts.manifest / 1024 + 16;
    let mut tmpfs = Tmpfs { more: options.tmpfs.clone(), ..Tmpfs::default() };
    let mut fits = Ok(());
    let wanted = bytes + total / 10;
    let (size, most_inodes) = own_limits(facts);
    let (asked_size, asked_inodes) = asked(options);
    match asked_size {
        None if size.is_some() => tmpfs.size = size.and_then(|size| at_least(wanted, size)),
        None if wanted <= total / 2 => {}
        None => tmpfs.size = Some(format!("{wanted}")),
        Some(size) => {
            let (text, limit) = amount(size, total);
            tmpfs.size = Some(text);
            let short = limit != 0 && limit < bytes;
            if short && options.size.is_some() {
                fits = Err(format!("size={limit} is too small: the tree needs {} KiB", bytes >> 10));
            } else if short {
                // It was chosen for what the kernel unpacks, which is less than the tree of a payload.
                tmpfs.size = at_least(wanted, limit);
            }
        }
    }
    // `shmem_default_max_inodes`: half of the pages, but not more than lie in low memory.
    let default = (total / 2).min(total - facts.memory.high.min(total)) / facts.page.max(1);
    let wanted = inodes + inodes / 10;
    match asked_inodes {
        None if most_inodes.is_some() => {
            tmpfs.nr_inodes = most_inodes.and_then(|limit| at_least(wanted, limit));
        }
        None if wanted <= default => {}
        None => tmpfs.nr_inodes = Some(format!("{wanted}")),
        Some(number) => {
            let (text, limit) = count(number);
            tmpfs.nr_inodes = Some(text);
            let short = limit != 0 && limit < inodes;
            if short && options.nr_inodes.is_some() {
                let small =
                    |()| Err(format!("nr_inodes={limit} is too small: the move needs {inodes} inodes"));
                fits = fits.and_then(small);
            } else if short {
                tmpfs.nr_inodes = at_least(wanted, limit);
            }
        }
    }
    (tmpfs, fits)
}

/// The limits of the old root in bytes and inodes (0 is none), unless they are the kernel's default. By
/// default a tmpfs may have as many pages as inodes, namely half of the pages at the time of its mount. A
/// stage that has remounted the root has changed one of them.
fn own_limits(facts: &Facts) -> (Option<u64>, Option<u64>) {
    let Capacity { size, inodes, .. } = facts.capacity;
    let is_own = facts.rootfs == RootFs::Tmpfs && size / facts.page.max(1) != inodes;
    (is_own.then_some(size), is_own.then_some(inodes))
}

/// A limit of at least this much, where 0 is none.
fn at_least(wanted: u64, limit: u64) -> Option<String> {
    Some(format!("{}", if limit == 0 { 0 } else { limit.max(wanted) }))
}
