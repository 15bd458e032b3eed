//! Swap in compressed memory.

use super::{MIB, disk, options, planned, with};
use crate::payload::payload;
use repot::facts::Facts;
use repot::facts::packed::Found;
use repot::options::{Amount, Options, Zram};
use repot::plan::{Method, Refusal, plan};
use repot::zram::{Algorithm, Support};

/// A payload of 600 MiB, in pages that take 45 % with zstd and 59 % with lz4, on a machine with this much
/// available memory.
fn short(available: u64, support: Support) -> Facts {
    with(|facts| {
        payload(600)(facts);
        facts.memory.available = available * MIB;
        facts.zram = support;
    })
}

#[test]
fn swap_is_made_where_the_tree_does_not_fit_and_counted() {
    let missing = || Support::Missing("why".into());
    let (auto, size) = (Zram::Auto, |mib: u64| Zram::Size(Amount::Exactly(mib * MIB)));
    // Available MiB, `zram=`, what is known of the driver; whether it is refused, the size of the device in
    // MiB, and the number of warnings.
    let rows = [
        // Enough for the tree, its inodes, a worker and 64 MiB for the system.
        (700, auto, Support::Possible, false, None, 0),
        (620, auto, Support::Possible, false, Some(600 + 256), 0),
        (620, Zram::No, Support::Unasked, false, None, 0),
        (620, auto, missing(), false, None, 1),
        // An explicit size is made everywhere.
        (700, size(64), Support::Possible, false, Some(64), 0),
        (700, Zram::Size(Amount::Percent(10)), Support::Possible, false, Some(102), 0),
        (700, size(64), missing(), false, None, 1),
        // Too little without, enough with.
        (300, Zram::No, Support::Unasked, true, None, 0),
        (300, auto, missing(), true, None, 0),
        (300, auto, Support::Possible, false, Some(856), 0),
        (300, auto, Support::Made(Algorithm::Other), true, None, 0),
        (380, auto, Support::Made(Algorithm::Other), false, Some(856), 0),
        // It holds a tenth of the tree.
        (300, size(60), Support::Possible, true, None, 0),
        (560, size(60), Support::Possible, true, None, 0),
        (580, size(60), Support::Possible, false, Some(60), 0),
        (0, auto, Support::Possible, true, None, 0),
    ];
    for (available, zram, support, refused, made, warnings) in rows {
        let name = format!("{available} {zram:?} {support:?}");
        match plan(&short(available, support), &options(|o| o.zram = zram)) {
            Err(Refusal::Payload(why)) => assert!(refused, "{name}: {why}"),
            Ok(plan) => {
                assert!(!refused, "{name}");
                assert_eq!(plan.zram.map(|zram| zram.size / MIB), made, "{name}");
                assert_eq!(plan.warnings.len(), warnings, "{name}: {:?}", plan.warnings);
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    // What is not swappable is not counted, nor is what exceeds the limit.
    let noswap = options(|o| (o.zram, o.tmpfs) = (auto, vec![("noswap".into(), None)]));
    assert!(plan(&short(300, Support::Possible), &noswap).is_err());
    let limited = options(|o| (o.zram, o.zram_limit) = (auto, Some(Amount::Exactly(MIB))));
    assert!(plan(&short(300, Support::Possible), &limited).is_err());
}

/// `zram=auto` never takes a chance away: pages that do not compress are unpacked without it, if they may
/// fit.
#[test]
fn swap_is_not_made_where_it_does_not_help() {
    let auto = options(|o| o.zram = Zram::Auto);
    let noise = |available| {
        let mut facts = short(available, Support::Possible);
        if let Found::Index(index, _) = &mut facts.payload {
            index.pages.zstd = index.pages.bytes();
        }
        facts
    };
    let plan_of = planned(&noise(570), &auto);
    assert_eq!((plan_of.method, plan_of.zram), (Method::Payload, None));
    let ignored = |warning: &String| warning.contains("zram=auto ignored: the pages of the payload");
    assert!(plan_of.warnings.iter().any(ignored), "{:?}", plan_of.warnings);
    assert!(plan(&noise(540), &auto).is_err());
}

#[test]
fn swap_lets_a_move_fit_and_stays_out_of_everything_else() {
    let auto = options(|o| o.zram = Zram::Auto);
    let tight = |available: u64| {
        with(|facts| {
            facts.memory.available = available * MIB;
            facts.zram = Support::Possible;
        })
    };
    assert_eq!(planned(&tight(800), &auto).zram, None);
    // The move fits, but leaves little.
    let plan = planned(&tight(50), &auto);
    assert_eq!((plan.method, plan.zram.map(|zram| zram.size / MIB)), (Method::Move, Some(100 + 256)));
    assert_eq!(planned(&tight(6), &Options::default()).method, Method::Move);
    assert_eq!(planned(&tight(4), &Options::default()).method, Method::Bind);
    assert_eq!(planned(&tight(6), &auto).method, Method::Move);
    // On a disk only an explicit size makes one.
    let on_disk = with(|facts| {
        disk(facts);
        (facts.memory.available, facts.zram) = (50 * MIB, Support::Possible);
    });
    assert_eq!(planned(&on_disk, &auto).zram, None);
    let explicit = options(|o| o.zram = Zram::Size(Amount::Exactly(MIB)));
    assert_eq!(planned(&on_disk, &explicit).zram.map(|zram| zram.size), Some(MIB));
}
