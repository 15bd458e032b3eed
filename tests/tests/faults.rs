//! One system call fails, any of them: an init runs on a complete tree all the same. `cargo xtask faults`
//! tries them all.
use repot_tests::faults::{Outcome, points, run, sample};
use repot_tests::trees::Fs;

/// Runs the sample and counts the points with each outcome.
fn each_is_survived(fs: Fs) -> (usize, usize, usize) {
    let sample = sample(&points(fs));
    assert!(sample.len() >= 150, "only {} points", sample.len());
    let results: Vec<_> = sample.iter().map(|point| (point, run(point))).collect();
    let bad: Vec<_> = results.iter().filter(|(_, outcome)| outcome.is_bad()).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let count = |what: &Outcome| results.iter().filter(|(_, outcome)| outcome == what).count();
    (count(&Outcome::Moved), count(&Outcome::Bound), count(&Outcome::Stayed))
}

#[test]
fn any_call_may_fail_on_a_ramfs() {
    let (moved, bound, stayed) = each_is_survived(Fs::Ramfs);
    // Each method was used.
    assert!(moved > 20 && bound > 20 && stayed > 10, "{moved} moved, {bound} bound, {stayed} stayed");
}

#[test]
fn any_call_may_fail_on_a_tmpfs() {
    let (moved, bound, stayed) = each_is_survived(Fs::Tmpfs);
    assert!(moved > 20 && bound > 20 && stayed > 10, "{moved} moved, {bound} bound, {stayed} stayed");
}
