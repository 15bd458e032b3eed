//! Decides whether swap in compressed memory (zram) is made, and how much less memory a tree takes with it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::facts::Facts;
use crate::options::{Amount, Options, Zram};
use crate::zram::{Algorithm, Support, Wanted};

/// What `zram=auto` leaves to the system that runs on the root, in bytes: with less, the tree does not fit.
pub(super) const SYSTEM: u64 = 64 << 20;
/// Memory of the device for a page that it may hold, in bytes: its table (24 on 6.12), the swap map and what
/// memory cgroups note.
const PER_PAGE: u64 = 32;
/// The device that the configuration asks for; `None` if it asks for none, or if none can be made, which is a
/// warning. `short` is whether the tree does not fit without it, and `tree` the bytes of its files.
pub(super) fn wanted(
    facts: &Facts,
    options: &Options,
    short: bool,
    tree: u64,
    warnings: &mut Vec<String>,
) -> Option<Wanted> {
    let total = facts.memory.total;
    let size = match options.zram {
        Zram::No => return None,
        Zram::Auto if !short => return None,
        Zram::Auto => tree.saturating_add(total / 4),
        Zram::Size(amount) => bytes(amount, total),
    };
    if options.zram == Zram::Auto && !pages_out(options) {
        warnings.push(String::from("zram=auto ignored: noswap keeps the tree in memory"));
        return None;
    }
    match &facts.zram {
        Support::Unasked => None,
        Support::Missing(why) => {
            warnings.push(format!("zram= ignored: {why}"));
            None
        }
        Support::Possible | Support::Made(_) => Some(Wanted {
            size,
            algorithm: options.zram_algorithm.clone(),
            limit: options.zram_limit.map(|limit| bytes(limit, total)),
        }),
    }
}

/// Whether the kernel may page the tree out.
pub(super) fn pages_out(options: &Options) -> bool {
    !options.tmpfs.iter().any(|(key, _)| key == "noswap")
}

/// Memory of a device itself, in bytes.
pub(super) fn overhead(wanted: &Wanted, page: u64) -> u64 {
    wanted.size / page.max(1) * PER_PAGE
}

/// The least memory that `tree` bytes take with the device: everything that it can hold is paged out, at this
/// many thousandths.
pub(super) fn least(tree: u64, wanted: &Wanted, thousandths: u64, page: u64) -> u64 {
    let limit = wanted.limit.map_or(u64::MAX, |limit| limit.saturating_mul(1000) / thousandths.max(1));
    let out = tree.min(wanted.size).min(limit);
    let held = out / 1000 * thousandths;
    (tree - out).saturating_add(held).saturating_add(overhead(wanted, page)).min(tree)
}

/// The algorithm: of the device that exists, as configured, or else the best.
pub(super) fn algorithm(facts: &Facts, options: &Options) -> Algorithm {
    match (&facts.zram, &options.zram_algorithm) {
        (Support::Made(algorithm), _) => *algorithm,
        (_, Some(name)) => Algorithm::named(name.as_bytes()),
        _ => Algorithm::Zstd,
    }
}

fn bytes(amount: Amount, total: u64) -> u64 {
    match amount {
        Amount::Exactly(bytes) => bytes,
        // Divided first, so that no percentage overflows.
        Amount::Percent(percent) => (total / 100).saturating_mul(percent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_a_device_holds_is_bounded_by_its_size_and_its_limit() {
        let least = |size, limit, thousandths, page| {
            let wanted = Wanted {
                size: size * MIB,
                algorithm: None,
                limit: Option::map(limit, |limit: u64| limit * MIB),
            };
            (least(200 * MIB, &wanted, thousandths, page) - 1) / MIB
        };
        // Size, limit, thousandths, page; MiB.
        for (size, limit, thousandths, page, expected) in [
            // All of it at a half, and 2 MiB for the table.
            (256, None, 500, 4096, 101),
            // The table is a sixteenth where a page has 64 KiB.
            (256, None, 500, 65_536, 100),
            // Half of it.
            (100, None, 500, 4096, 150),
            // 40 MiB take 20.
            (256, Some(20), 500, 4096, 181),
            // Not compressible: never more than without.
            (256, None, 1000, 4096, 199),
        ] {
            assert_eq!(least(size, limit, thousandths, page), expected, "{size} {limit:?} {thousandths}");
        }
    }
}
