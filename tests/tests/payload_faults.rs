//! Payloads where calls fail and memory ends: an init on a whole tree, or none and the cause.
use repot_tests::faults::Outcome;
use repot_tests::payload::faults::{Sweep, is_bad};

/// A sample of the sweep (`cargo xtask faults --payload` runs all of it). What must be a success, and what must be told, is decided there.
#[test]
fn a_call_that_fails_leaves_a_whole_system_or_none() {
    let sweep = Sweep::new();
    let points = sweep.points();
    assert!(points.len() > 1000, "{} points", points.len());
    let (mut moved, mut gave_up) = (0, 0);
    for point in points.iter().step_by(71) {
        let outcome = sweep.run(point);
        assert!(!is_bad(&outcome), "{point}: {outcome:?}");
        moved += u32::from(outcome == Outcome::Moved);
        gave_up += u32::from(matches!(outcome, Outcome::GaveUp(_)));
    }
    assert!(moved > 20 && gave_up > 0, "{moved} {gave_up}");
}
