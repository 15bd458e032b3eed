//! Moves of everything that can be lost, on both file systems, and of random trees.
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use repot_snapshot::{difference, snapshot};
use repot_tests::reference::relocate;
use repot_tests::rehome::{AFTER_BOOT, rehome};
use repot_tests::stage::prepare;
use repot_tests::trees::{Fs, Plant, hostile, trees};

#[test]
fn the_hostile_tree_from_ramfs() {
    rehome(Fs::Ramfs, |stage| stage.plant(&hostile())).check();
}

#[test]
fn the_hostile_tree_from_tmpfs() {
    rehome(Fs::Tmpfs, |stage| stage.plant(&hostile())).check();
}

/// A random tree is the same before and after, and as the reference mover leaves it.
#[test]
fn random_trees_move_as_by_the_reference() {
    let config = ProptestConfig {
        cases: 64,
        failure_persistence: None,
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    };
    let cases = (proptest::sample::select(&Fs::ALL[..]), trees(60));
    let result = TestRunner::new(config).run(&cases, |(fs, tree)| {
        let moved = rehome(fs, |stage| stage.plant(&tree));
        moved.check();
        prop_assert_eq!(difference(&by_reference(fs, &tree), &moved.after, AFTER_BOOT), "");
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn by_reference(fs: Fs, tree: &[Plant]) -> repot_snapshot::Snapshot {
    let from = prepare(fs, |stage| {
        stage.install("mode=move\n");
        stage.plant(tree);
    });
    let to = prepare(Fs::Tmpfs, |_| ());
    relocate(&from.view, &to.tree).expect("moved");
    snapshot(&to.view).expect("a snapshot")
}
