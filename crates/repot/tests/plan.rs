//! The plan for each situation, one row each.

use repot::facts::packed::Found;
use repot::facts::program::{Candidate, Why};
use repot::facts::unpacked::Unpacking;
use repot::facts::{Capacity, Facts, Memory, RootFs};
use repot::marker::Totals;
use repot::options::{Amount, Mode, Options, Zram};
use repot::payload::index::{CHUNK_SIZE, Chunk, Frame, Index};
use repot::plan::{Method, Plan, Refusal, plan};
use repot::walk::survey::Survey;
use repot::zram::{Algorithm, Support};

const MIB: u64 = 1 << 20;

/// A stock kernel that has just unpacked a tree of 100 MiB into its initial ramfs, with 1 GiB of memory.
fn facts() -> Facts {
    let mut facts = Facts::default();
    facts.rootfs = RootFs::Ramfs;
    facts.initial = true;
    facts.parentless = true;
    facts.root_mount = 1;
    facts.survey =
        Survey { entries: 5000, directories: 500, bytes: 100 * MIB, largest: 9 * MIB, ..Survey::default() };
    facts.memory = Memory { total: 1024 * MIB, available: 800 * MIB, high: 0 };
    facts.kernel = (6, 12);
    facts.cpus = 2;
    facts.candidates = vec![Candidate { path: b"/sbin/init".to_vec(), why: None }];
    facts
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = facts();
    change(&mut facts);
    facts
}

fn options(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    change(&mut options);
    options
}

fn mode(mode: Mode) -> Options {
    options(|options| options.mode = mode)
}

fn tmpfs(facts: &mut Facts) {
    facts.rootfs = RootFs::Tmpfs;
    facts.capacity = Capacity { size: 500 * MIB, free: 400 * MIB, inodes: 128_000, free_inodes: 120_000 };
}

fn disk(facts: &mut Facts) {
    (facts.rootfs, facts.initial, facts.parentless) = (RootFs::Other(0xef53), false, false);
}

fn rehomed(facts: &mut Facts) {
    tmpfs(facts);
    (facts.initial, facts.parentless) = (false, false);
}

fn others(facts: &mut Facts) {
    facts.others = vec!["dropbear[2]".into(), "sh[3]".into()];
}

fn bound(facts: &mut Facts) {
    facts.dependents = vec!["loop0 has its backing file in it".into()];
}

fn itself(facts: &mut Facts) {
    facts.mounts = repot::facts::mountinfo::parse(
        b"1 1 0:2 / / rw - rootfs rootfs rw\n20 1 0:2 /self /self rw - rootfs rootfs rw\n",
    );
}

fn beside(mode: Mode) -> Options {
    options(|options| (options.mode, options.ignore_others) = (mode, true))
}

/// A name, the situation, and the expected method and part of its reason.
type Row<'a> = (&'a str, Facts, Options, Method, &'a str);

fn check(rows: &[Row<'_>]) {
    for (name, facts, options, method, reason) in rows {
        let plan = plan(facts, options).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!(plan.method, *method, "{name}: {}", plan.reason);
        assert!(plan.reason.contains(reason), "{name}: {}", plan.reason);
    }
}

#[test]
fn every_situation_has_its_method() {
    let short = |facts: &mut Facts| facts.memory.available = MIB;
    let nullfs = |facts: &mut Facts| facts.parentless = false;
    let other = |magic| {
        with(|facts| {
            disk(facts);
            facts.rootfs = RootFs::Other(magic);
        })
    };
    let size = |amount| options(|options| options.size = Some(amount));
    let inodes = |amount| options(|options| options.nr_inodes = Some(Amount::Exactly(amount)));
    check(&[
        ("initial ramfs", facts(), mode(Mode::Auto), Method::Move, "/ is the initial ramfs"),
        ("initial tmpfs", with(tmpfs), mode(Mode::Auto), Method::Move, "/ is the initial tmpfs"),
        ("initial ramfs on nullfs", with(nullfs), mode(Mode::Auto), Method::Move, "/ is the initial ramfs"),
        ("re-homed before", with(rehomed), mode(Mode::Auto), Method::Stay, "/ is not the initial root"),
        ("re-homed, again", with(rehomed), mode(Mode::Move), Method::Move, "as configured"),
        ("disk", with(disk), mode(Mode::Auto), Method::Stay, "/ is neither"),
        ("disk, move", with(disk), mode(Mode::Move), Method::Stay, "/ is neither"),
        ("disk, bind", with(disk), mode(Mode::Bind), Method::Bind, "as configured"),
        ("iso", other(0x9660), mode(Mode::Auto), Method::Stay, "/ is neither"),
        ("overlay", other(0x794c_7630), mode(Mode::Auto), Method::Stay, "/ is neither"),
        ("stay", facts(), mode(Mode::Stay), Method::Stay, "as configured"),
        ("bind", facts(), mode(Mode::Bind), Method::Bind, "as configured"),
        ("short of memory", with(short), mode(Mode::Auto), Method::Bind, "the move needs"),
        ("short of memory, move", with(short), mode(Mode::Move), Method::Bind, "the move needs"),
        (
            "short of memory on nullfs",
            with(|f| {
                short(f);
                nullfs(f)
            }),
            mode(Mode::Auto),
            Method::Stay,
            "the move needs",
        ),
        (
            "size too small",
            facts(),
            size(Amount::Exactly(99 * MIB)),
            Method::Bind,
            "size=103809024 is too small",
        ),
        ("size too small in percent", facts(), size(Amount::Percent(9)), Method::Bind, "is too small"),
        ("size that fits", facts(), size(Amount::Exactly(101 * MIB)), Method::Move, "/ is"),
        ("no limit", facts(), size(Amount::Exactly(0)), Method::Move, "/ is"),
        ("too few inodes", facts(), inodes(5000), Method::Bind, "nr_inodes=5000 is too small"),
        ("inodes that fit", facts(), inodes(5100), Method::Move, "/ is"),
    ]);
}

#[test]
fn what_else_uses_the_root_decides() {
    let largest = |facts: &mut Facts| {
        (facts.survey.bytes, facts.survey.largest) = (500 * MIB, 500 * MIB);
        facts.memory.available = 300 * MIB;
    };
    let few = |facts: &mut Facts| facts.descriptors = 255;
    let unseen = |facts: &mut Facts| facts.unseen = Some("facts: getdents64: EIO".into());
    let blind = |facts: &mut Facts| {
        unseen(facts);
        facts.root_mount = 0;
    };
    check(&[
        (
            "others",
            with(others),
            mode(Mode::Auto),
            Method::Bind,
            "2 other processes run from /: dropbear[2] sh[3]",
        ),
        ("others, move", with(others), mode(Mode::Move), Method::Bind, "2 other processes"),
        ("others are ignored", with(others), beside(Mode::Move), Method::Move, "as configured"),
        ("no room for a whole file", with(largest), beside(Mode::Move), Method::Bind, "the move needs"),
        ("the same, truncated", with(largest), mode(Mode::Move), Method::Move, "as configured"),
        ("few descriptors", with(few), mode(Mode::Auto), Method::Bind, "the move needs 256 descriptors"),
        ("no survey", with(unseen), mode(Mode::Auto), Method::Bind, "facts: getdents64"),
        ("no survey, move", with(unseen), mode(Mode::Move), Method::Bind, "facts: getdents64"),
        ("no mounts", with(blind), mode(Mode::Bind), Method::Stay, "facts: getdents64"),
        ("others are not ignored", with(others), beside(Mode::Auto), Method::Bind, "2 other processes"),
        ("loop device", with(bound), mode(Mode::Auto), Method::Bind, "/ is in use: loop0 has"),
        ("loop device, move", with(bound), beside(Mode::Move), Method::Bind, "in use: "),
        (
            "directory",
            with(|f| f.root_mount = 0),
            mode(Mode::Move),
            Method::Stay,
            "/ is not the root of a mount",
        ),
    ]);
}

#[test]
fn bind_mounts_of_the_root_move_unless_they_cannot_be_made_again() {
    let decided = |change: fn(&mut Facts), options: &Options| {
        let facts = with(|facts| {
            itself(facts);
            change(facts);
        });
        let Plan { method, reason, .. } = planned(&facts, options);
        (method, reason)
    };
    let start = "/ is in use: \"/self\" is a bind mount of \"/self\" in it";
    assert_eq!(decided(|_| (), &mode(Mode::Auto)), (Method::Move, "/ is the initial ramfs".to_string()));
    let used = (Method::Bind, format!("{start}, and other processes may use it"));
    assert_eq!(decided(others, &beside(Mode::Move)), used);
    // A mount of what was removed cannot be carried by a bind either.
    let lost = (Method::Stay, format!("{start}, where that cannot be found any more"));
    assert_eq!(decided(|facts| facts.lost.push(20), &mode(Mode::Move)), lost);
}

fn planned(facts: &Facts, options: &Options) -> Plan {
    plan(facts, options).expect("a plan")
}

#[test]
fn the_default_size_stays_unless_the_tree_needs_more() {
    let small = planned(&facts(), &Options::default());
    assert_eq!((small.tmpfs.size, small.tmpfs.nr_inodes), (None, None));
    let large = planned(&with(|facts| facts.survey.bytes = 500 * MIB), &Options::default());
    assert_eq!(large.tmpfs.size.as_deref(), Some("631662182"), "the tree and a tenth of the memory");
    let many = planned(&with(|facts| facts.survey.entries = 200_000), &Options::default());
    assert_eq!(many.tmpfs.nr_inodes.as_deref(), Some("220018"), "the entries and a tenth more");
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
fn not_pid_1_and_no_init_are_refused() {
    let other = with(|facts| facts.first = false);
    assert_eq!(plan(&other, &Options::default()), Err(Refusal::NotFirst));
    let none = with(|facts| facts.candidates[0].why = Some(Why::Mode));
    let refusal = plan(&none, &Options::default()).expect_err("nothing to execute");
    assert_eq!(refusal.to_string(), r#"no init is executable; "/sbin/init" is not executable"#);
}

#[test]
fn the_first_executable_candidate_is_the_init() {
    let facts = with(|facts| {
        facts.candidates.insert(0, Candidate { path: b"/init.real".to_vec(), why: Some(Why::Machine(183)) });
        facts.candidates.push(Candidate { path: b"/bin/sh".to_vec(), why: None });
    });
    let plan = planned(&facts, &Options::default());
    assert_eq!(plan.inits, [&b"/sbin/init"[..], b"/bin/sh"]);
    assert_eq!(
        plan.warnings,
        [r#"init: "/init.real" is built for another architecture (ELF machine 183); trying the next"#]
    );
}

#[test]
fn a_truncated_initramfs_is_refused() {
    let complaint = |text: &str| Unpacking { complaints: vec![text.to_string()], ..Unpacking::default() };
    let marked = |entries, bytes| Unpacking {
        begun: true,
        end: Some(Totals { entries, bytes, inodes: 0 }),
        ..Unpacking::default()
    };
    let rows: &[(&str, Facts, Option<&str>)] = &[
        (
            "write error",
            with(|f| f.unpacking = complaint("Initramfs unpacking failed: write error")),
            Some("write error"),
        ),
        (
            "junk",
            with(|f| f.unpacking = complaint("Initramfs unpacking failed: junk within compressed archive")),
            None,
        ),
        (
            "no blocks",
            with(|f| {
                tmpfs(f);
                f.capacity.free = 0
            }),
            Some("all 500.0 MiB are used"),
        ),
        (
            "no inodes",
            with(|f| {
                tmpfs(f);
                f.capacity.free_inodes = 0
            }),
            Some("all 128000 inodes are used"),
        ),
        ("ramfs has no room to run out of", facts(), None),
        ("no end", with(|f| f.unpacking.begun = true), Some("the archive has no end")),
        ("end", with(|f| f.unpacking = marked(5000, 100 * MIB)), None),
        // Later segments replaced files by smaller ones, or an earlier stage deleted some.
        ("fewer entries", with(|f| f.unpacking = marked(5001, MIB)), None),
        ("fewer bytes", with(|f| f.unpacking = marked(9, 100 * MIB + 1)), None),
        (
            "not the initramfs",
            with(|f| {
                rehomed(f);
                f.capacity.free = 0
            }),
            None,
        ),
    ];
    for (name, facts, missing) in rows {
        match (plan(facts, &Options::default()), missing) {
            (Ok(plan), None) => assert_eq!(plan.warnings.len(), facts.unpacking.complaints.len(), "{name}"),
            (Err(refusal @ Refusal::Truncated(..)), Some(missing)) => {
                let text = refusal.to_string();
                assert!(text.contains(missing), "{name}: {text}");
                let mentions = |word: &str| text.contains(word);
                assert!(mentions("MemTotal is 1.0 GiB") && mentions("more memory"), "{name}: {text}");
                // A ramfs has no limit to raise.
                let capped = facts.rootfs == RootFs::Tmpfs;
                assert_eq!(mentions("rootfstype=ramfs"), capped, "{name}: {text}");
                assert_eq!(mentions("initramfs_options=size="), capped, "{name}: {text}");
                // If there was room, the image itself is to blame.
                assert_eq!(mentions("a complete image"), mentions("archive"), "{name}: {text}");
                let anyway = options(|options| options.boot_truncated = true);
                assert!(planned(facts, &anyway).warnings[0].contains("truncated=continue"), "{name}");
            }
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
}

/// A payload of `mib` MiB in pages, in 40 MiB of chunks; the initramfs holds nothing else.
fn payload(mib: u64) -> impl FnOnce(&mut Facts) {
    move |facts| {
        let chunk = Chunk { size: CHUNK_SIZE, sum: 1, digest: [1; 32] };
        let chunks = vec![chunk; usize::try_from(40 * MIB / CHUNK_SIZE).expect("few")];
        let frame = Frame { start: 0, size: 40 * MIB, content: 2 * mib * MIB, more: false };
        let index = Index {
            entries: 1000,
            bytes: mib * MIB,
            pages: mib * MIB / 4096,
            inodes: 1000,
            chunks,
            frames: vec![frame],
            ..Index::default()
        };
        facts.payload = Found::Index(index, [7; 32]);
        facts.survey = Survey { entries: 165, bytes: 41 * MIB, ..Survey::default() };
    }
}

#[test]
fn a_payload_is_unpacked_or_refused() {
    let with_digests = |digests: &[Option<[u8; 32]>]| options(|o| o.payload = digests.to_vec());
    let (right, wrong) = (Some([7; 32]), Some([8; 32]));
    let uncovered = options(|o| (o.payload, o.uncovered) = (vec![right], vec!["init=".into()]));
    let beside_it = |f: &mut Facts| {
        payload(100)(f);
        f.outside = vec!["sbin".into()];
    };
    // The payload, the configuration, and the text of the refusal.
    let rows: &[(&str, Facts, Options, Option<&str>)] = &[
        ("one", with(payload(100)), Options::default(), None),
        ("the one", with(payload(100)), with_digests(&[right, right]), None),
        ("another", with(payload(100)), with_digests(&[wrong]), Some("payload= requires")),
        ("both", with(payload(100)), with_digests(&[right, wrong]), Some("payload= requires")),
        ("nonsense", with(payload(100)), with_digests(&[None]), Some("a malformed digest")),
        ("none", with(|_| ()), with_digests(&[right]), Some("the image has no payload")),
        ("beside", with(beside_it), with_digests(&[right]), Some("entries beside the payload: sbin")),
        ("init=", with(payload(100)), uncovered, Some("does not cover what /etc/repot.conf sets: init=")),
        ("unread", with(payload(100)), options(|o| o.unread = true), Some("could not be read")),
        ("useless", with(|f| f.payload = Found::Useless("why".into())), Options::default(), Some("why")),
        ("too large", with(payload(900)), Options::default(), Some("more memory")),
        (
            "size",
            with(payload(100)),
            options(|o| o.size = Some(Amount::Exactly(50 * MIB))),
            Some("does not fit"),
        ),
        (
            "inodes",
            with(payload(100)),
            options(|o| o.nr_inodes = Some(Amount::Exactly(9))),
            Some("does not fit"),
        ),
    ];
    for (name, facts, options, refused) in rows {
        match (plan(facts, options), refused) {
            (Ok(plan), None) => assert_eq!(plan.method, Method::Payload, "{name}"),
            (Err(Refusal::Payload(why)), Some(expected)) => assert!(why.contains(expected), "{name}: {why}"),
            (other, _) => panic!("{name}: {other:?}"),
        }
    }
}

/// A payload of 600 MiB, of which frames say a thirtieth, on a machine with this much available memory.
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
        // Too little without, plenty with: the tree takes about a fourteenth.
        (300, Zram::No, Support::Unasked, true, None, 0),
        (300, auto, missing(), true, None, 0),
        (300, auto, Support::Possible, false, Some(856), 0),
        (300, auto, Support::Made(Algorithm::Other), false, Some(856), 0),
        // It holds a tenth of the tree.
        (300, size(60), Support::Possible, true, None, 0),
        (505, size(60), Support::Possible, false, Some(60), 1),
        // Perhaps: the freed chunks may be enough.
        (0, auto, Support::Possible, false, Some(856), 1),
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

#[test]
fn a_payload_gets_the_tmpfs_and_the_threads_that_fit() {
    let ample = planned(&with(payload(600)), &Options::default());
    let size: u64 = ample.tmpfs.size.expect("more than half of the memory").parse().expect("a number");
    // The payload, the rest of the initramfs, and a tenth of the memory.
    assert_eq!(size >> 20, 600 + 1 + 102);
    let short = with(|facts| {
        payload(600)(facts);
        facts.memory.available = 562 * MIB;
    });
    let tight = planned(&short, &Options::default());
    assert_eq!((tight.method, tight.threads, tight.warnings.len()), (Method::Payload, 1, 1));
    // 600 MiB, minus 40 MiB of chunks and 16 MiB that the kernel does not report as available.
    for (available, fits) in [(544, true), (543, false)] {
        let shorter = with(|facts| {
            payload(600)(facts);
            facts.memory.available = available * MIB;
        });
        assert_eq!(plan(&shorter, &Options::default()).is_ok(), fits, "{available}");
    }
    for other in [Mode::Bind, Mode::Stay] {
        let plan = planned(&with(payload(100)), &mode(other));
        assert!(plan.warnings.iter().any(|warning| warning.contains("mode=")), "{:?}", plan.warnings);
    }
    // A root that was re-homed before is left alone, whatever its configuration requests.
    let again = with(|facts| {
        payload(100)(facts);
        rehomed(facts);
    });
    assert_eq!(planned(&again, &options(|o| o.payload = vec![None])).method, Method::Stay);
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
