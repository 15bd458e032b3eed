//! Tests of the tests: what snapshots see, and whether the reference mover moves.
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use repot_snapshot::{Rules, difference, snapshot};
use repot_tests::reference::relocate;
use repot_tests::stage::prepare;
use repot_tests::trees::{Fs, Plant, crowd, hostile, plant, shaft, trees};

/// Moves a tree with the reference mover and returns the differences.
fn moved(fs: Fs, tree: &[Plant]) -> String {
    let from = prepare(fs, |stage| stage.plant(tree));
    let to = prepare(Fs::Tmpfs, |_| ());
    relocate(&from.view, &to.tree).expect("moved");
    let left = snapshot(&from.view).expect("snapshot");
    assert_eq!(
        left.len(),
        1,
        "left: {:?}",
        left.keys().map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>()
    );
    difference(&from.before, &snapshot(&to.view).expect("snapshot"), Rules::EXACT)
}

#[test]
fn the_reference_moves_the_hostile_tree() {
    for fs in Fs::ALL {
        assert_eq!(moved(fs, &hostile()), "", "from {fs:?}");
    }
}

#[test]
fn the_reference_moves_random_trees() {
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let cases = (proptest::sample::select(&Fs::ALL[..]), trees(60));
    runner
        .run(&cases, |(fs, tree)| {
            prop_assert_eq!(moved(fs, &tree), "");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

/// A snapshot changes nothing: the second one is equal, access times and holes included.
#[test]
fn a_snapshot_changes_nothing() {
    for fs in Fs::ALL {
        let stage = prepare(fs, |stage| stage.plant(&hostile()));
        let again = snapshot(&stage.view).expect("snapshot");
        assert_eq!(difference(&stage.before, &again, Rules::EXACT), "", "on {fs:?}");
    }
}

/// Neither depth nor number of entries has a limit.
#[test]
fn a_snapshot_holds_large_trees() {
    let stage = prepare(Fs::Tmpfs, |stage| {
        shaft(stage.root(), 4000);
        crowd(stage.root(), 20_000);
    });
    let deepest = stage.before.keys().map(Vec::len).max();
    assert!(deepest > Some(20_000), "the deepest path has {deepest:?} bytes");
    assert_eq!(stage.before.len(), 1 + 4000 + 40 + 1 + 20_000);
}

/// A difference in any attribute is found.
#[test]
fn a_snapshot_sees_every_attribute() {
    let base = || Plant { path: b"x".to_vec(), what: file(100), meta: Default::default() };
    let other = [
        ("mode", base().mode(0o600)),
        ("uid", base().owned(1, 0)),
        ("gid", base().owned(0, 1)),
        ("atime", base().times((1_600_000_000, 2), (1_500_000_000, 999_999_999))),
        ("mtime", base().times((1_600_000_000, 1), (1_500_000_000, 999_999_998))),
        ("xattrs", base().xattr("user.x", b"")),
        ("flags", base().flags(0x40)),
        ("size", Plant { what: file(101), ..base() }),
        ("contents", Plant { what: file(99), ..base() }),
        ("data was", Plant { what: hole(100), ..base() }),
        ("kind", Plant { what: repot_tests::trees::What::Fifo, ..base() }),
    ];
    for (what, plant) in other {
        let snapshots = [base(), plant].map(|plant| prepare(Fs::Tmpfs, |stage| stage.plant(&[plant])).before);
        let said = difference(&snapshots[0], &snapshots[1], Rules::EXACT);
        assert!(said.contains(what), "{what}: {said}");
    }
}

/// Two hard links are not equal to two files with the same contents.
#[test]
fn a_snapshot_distinguishes_links_from_copies() {
    use repot_tests::trees::What::HardLink;
    let first = Plant { path: b"a".to_vec(), what: file(10), meta: Default::default() };
    let copy = Plant { path: b"b".to_vec(), ..first.clone() };
    let link = Plant { what: HardLink(b"a".to_vec()), ..copy.clone() };
    let [copies, links] = [copy, link].map(|second| {
        let stage = prepare(Fs::Tmpfs, |_| ());
        plant(&stage.view, Fs::Tmpfs, &[first.clone(), second]);
        snapshot(&stage.view).expect("snapshot")
    });
    let said = difference(&links, &copies, Rules::EXACT);
    assert!(said.contains("nlink was 2, is 1") && said.contains("linked was"), "{said}");
}

fn file(len: u64) -> repot_tests::trees::What {
    repot_tests::trees::What::File { len, data: vec![repot_tests::trees::Data { at: 0, len }] }
}

fn hole(len: u64) -> repot_tests::trees::What {
    repot_tests::trees::What::File { len, data: vec![] }
}
