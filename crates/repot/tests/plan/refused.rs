//! What is not started at all.

use super::{MIB, facts, options, planned, rehomed, tmpfs, with};
use repot::facts::program::{Candidate, Why};
use repot::facts::unpacked::Unpacking;
use repot::facts::{Facts, RootFs};
use repot::marker::Totals;
use repot::options::Options;
use repot::plan::{Refusal, plan};

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
