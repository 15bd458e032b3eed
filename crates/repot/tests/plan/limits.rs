//! The size of the new root, and with how many threads and large folios it is filled.

use super::{MIB, facts, options, others, planned, tmpfs, with};
use repot::facts::{Capacity, Facts};
use repot::options::{Amount, Options};
use repot::plan::Method;

#[test]
fn the_default_size_stays_unless_the_tree_needs_more() {
    let small = planned(&facts(), &Options::default());
    assert_eq!((small.tmpfs.size, small.tmpfs.nr_inodes), (None, None));
    let large = planned(&with(|facts| facts.survey.bytes = 500 * MIB), &Options::default());
    assert_eq!(large.tmpfs.size.as_deref(), Some("631662182"), "the tree and a tenth of the memory");
    let many = planned(&with(|facts| facts.survey.entries = 200_000), &Options::default());
    assert_eq!(many.tmpfs.nr_inodes.as_deref(), Some("220018"), "the entries and a tenth more");
}

/// `initramfs_options=` was chosen for what the kernel unpacks, and the tree of a payload is larger.
#[test]
fn limits_of_the_initial_root_are_kept_where_the_tree_fits() {
    let plan = |size, number| {
        let asked = options(|options| {
            (options.initial_size, options.initial_nr_inodes) = (Some(size), Some(Amount::Exactly(number)));
        });
        let change = |facts: &mut Facts| (facts.survey.bytes, facts.survey.entries) = (500 * MIB, 1000);
        let plan = planned(&with(change), &asked);
        assert_eq!(plan.method, Method::Move);
        (plan.tmpfs.size.unwrap(), plan.tmpfs.nr_inodes.unwrap())
    };
    assert_eq!(plan(Amount::Percent(90), 2000), ("90%".into(), "2000".into()));
    assert_eq!(plan(Amount::Exactly(0), 0), ("0".into(), "0".into()));
    assert_eq!(plan(Amount::Exactly(400 * MIB), 900), ("631662182".into(), "1118".into()));
}

/// On 32 bits, the kernel's default of inodes does not count high memory.
#[test]
fn high_memory_lowers_the_default_of_inodes() {
    let many = |high| {
        let change = |facts: &mut Facts| {
            facts.survey.entries = 80_000;
            facts.memory.high = high;
        };
        planned(&with(change), &Options::default()).tmpfs.nr_inodes
    };
    assert_eq!(many(0), None);
    // Low memory is still more than half.
    assert_eq!(many(400 * MIB), None);
    assert_eq!(many(724 * MIB).as_deref(), Some("88018"));
}

/// The size that a move would need is nothing to impose on a root that stays.
#[test]
fn a_bind_sets_only_what_is_configured_and_fits() {
    let busy = |facts: &mut Facts| {
        tmpfs(facts);
        others(facts);
        facts.survey.bytes = 600 * MIB;
        facts.survey.entries = 300_000;
        facts.capacity = Capacity { size: 900 * MIB, free: 200 * MIB, inodes: 500_000, free_inodes: 100_000 };
    };
    let bound = planned(&with(busy), &Options::default());
    assert_eq!(bound.method, Method::Bind);
    assert!(bound.tmpfs.size.is_some() && bound.tmpfs.nr_inodes.is_some());
    assert_eq!((bound.bound.size, bound.bound.nr_inodes), (None, None));
    let limits = |size, inodes| {
        options(|options| (options.size, options.nr_inodes) = (Some(size), Some(Amount::Exactly(inodes))))
    };
    let fits = planned(&with(busy), &limits(Amount::Exactly(700 * MIB), 400_000));
    assert_eq!(
        (fits.bound.size.as_deref(), fits.bound.nr_inodes.as_deref()),
        (Some("734003200"), Some("400000"))
    );
    assert!(fits.warnings.is_empty());
    let less = planned(&with(busy), &limits(Amount::Percent(60), 399_999));
    assert_eq!((less.bound.size, less.bound.nr_inodes), (None, None));
    assert_eq!(
        less.warnings,
        [
            "size=60% ignored: 734003200 are in use, and the root stays where it is",
            "nr_inodes=399999 ignored: 400000 are in use, and the root stays where it is"
        ]
    );
    let unlimited = planned(&with(busy), &limits(Amount::Exactly(0), 0));
    assert_eq!(
        (unlimited.bound.size.as_deref(), unlimited.bound.nr_inodes.as_deref()),
        (Some("0"), Some("0"))
    );
}

#[test]
fn hard_links_and_long_symlinks_count() {
    let facts = with(|facts| {
        facts.survey.hard_links = 4000;
        facts.survey.long_symlinks = 1000;
    });
    let exact = options(|options| options.nr_inodes = Some(Amount::Exactly(7017)));
    assert_eq!(planned(&facts, &exact).method, Method::Move);
    let less = options(|options| options.nr_inodes = Some(Amount::Exactly(7016)));
    assert_eq!(planned(&facts, &less).method, Method::Bind);
    let size = options(|options| options.size = Some(Amount::Exactly(100 * MIB + 999 * 4096)));
    assert_eq!(planned(&facts, &size).method, Method::Bind);
}

#[test]
fn one_thread_when_memory_is_short() {
    let facts = with(|facts| {
        facts.cpus = 8;
        facts.memory.available = 6 * MIB;
    });
    assert_eq!(planned(&facts, &Options::default()).threads, 1);
    // Enough for two threads, but not for the freed pages that the kernel keeps on each of two CPUs.
    let tight = with(|facts| facts.memory.available = 191 * MIB);
    assert_eq!(planned(&tight, &Options::default()).threads, 1);
    let plenty = with(|facts| facts.cpus = 64);
    assert_eq!(planned(&plenty, &Options::default()).threads, 8);
    assert_eq!(planned(&plenty, &options(|options| options.threads = Some(3))).threads, 3);
}

#[test]
fn large_folios_only_with_enough_memory_and_no_holes() {
    let recent = |facts: &mut Facts| facts.kernel = (6, 14);
    assert!(planned(&with(recent), &Options::default()).large_folios);
    assert!(!planned(&facts(), &Options::default()).large_folios);
    let tight = with(|facts| {
        recent(facts);
        facts.memory.available = 191 * MIB;
    });
    assert!(!planned(&tight, &Options::default()).large_folios);
    let holes = with(|facts| {
        recent(facts);
        facts.survey.sparse = 1;
    });
    assert!(!planned(&holes, &Options::default()).large_folios);
    let with_huge = options(|options| options.tmpfs.push(("huge".to_string(), Some("never".to_string()))));
    assert!(!planned(&with(recent), &with_huge).large_folios);
}

#[test]
fn limits_that_a_stage_has_set_are_kept() {
    let limited = |size: u64, inodes: u64| {
        let facts = with(|facts| {
            tmpfs(facts);
            (facts.capacity.size, facts.capacity.inodes) = (size, inodes);
        });
        let plan = planned(&facts, &Options::default());
        (plan.tmpfs.size, plan.tmpfs.nr_inodes)
    };
    let text = |number: u64| Some(format!("{number}"));
    // As many pages as inodes: the kernel's default at the time of the mount.
    assert_eq!(limited(500 * MIB, 128_000), (None, None));
    assert_eq!(limited(900 * MIB, 128_000), (text(900 * MIB), text(128_000)));
    assert_eq!(limited(0, 128_000), (text(0), text(128_000)));
    // Never less than the move needs.
    let (size, _) = limited(101 * MIB, 128_000);
    assert!(size.is_some_and(|size| size.parse::<u64>().is_ok_and(|size| size > 150 * MIB)));
    let wanted = options(|options| options.size = Some(Amount::Percent(60)));
    let facts = with(|facts| {
        tmpfs(facts);
        facts.capacity.size = 900 * MIB;
    });
    assert_eq!(planned(&facts, &wanted).tmpfs.size.as_deref(), Some("60%"));
}
