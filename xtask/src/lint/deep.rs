//! `cargo xtask lint --deep`: what finds undefined behavior and races, and takes minutes.

use super::toolchain::{nightly_lacks, with};
use super::{Check, Outcome, cargo, passed};
use anyhow::Result;
use repot_harness::command::run;
use repot_harness::place;

pub(super) const CHECKS: [Check; 3] = [("loom", loom), ("ThreadSanitizer", thread_sanitizer), ("Miri", miri)];

/// The library's tests of parsers, the plan, the table of hard links, the index and the archive.
fn miri() -> Result<Outcome> {
    if let Some(why) = nightly_lacks(&["miri", "rust-src"]) {
        return Ok(Outcome::Skipped(why));
    }
    let mut cargo = with("nightly");
    cargo.args([
        "miri",
        "test",
        "--quiet",
        "--package=repot",
        "--lib",
        "--test=plan",
        "--features=index",
        "--",
    ]);
    // Miri rejects the type of an argument in rustix's futex call. The other two checks run these tests.
    cargo.args(["--skip=sys::crew", "--skip=sys::futex"]);
    cargo.env("CARGO_TARGET_DIR", place::kept("deep/miri")?);
    run(&mut cargo).map(passed)
}

/// The models of `loom/`.
fn loom() -> Result<Outcome> {
    let mut test = cargo(&["test", "--quiet", "--lib", "--manifest-path", "loom/Cargo.toml"]);
    run(test.env("CARGO_TARGET_DIR", place::kept("deep/loom")?)).map(passed)
}

/// The tests of threads, locks and walks. The standard library is built too: it has to be instrumented.
fn thread_sanitizer() -> Result<Outcome> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    if let Some(why) = nightly_lacks(&["rust-src"]) {
        return Ok(Outcome::Skipped(why));
    }
    if std::env::consts::ARCH != "x86_64" {
        return Ok(Outcome::Skipped("ThreadSanitizer is set up for x86_64 only".into()));
    }
    let target = place::kept("deep/tsan")?;
    for (which, names) in [("--lib", &["sys::crew", "sys::futex"][..]), ("--test=survey", &[])] {
        let mut test = with("nightly");
        test.args(["test", "--quiet", "-Zbuild-std", "--target", TARGET]);
        test.args(["--package=repot", "--features=std", which, "--"]).args(names);
        // The panic runtime of std has to match that of the tests, which always unwind.
        test.env("CARGO_PROFILE_DEV_PANIC", "unwind");
        test.env("RUSTFLAGS", "-Zsanitizer=thread").env("CARGO_TARGET_DIR", &target);
        run(&mut test)?;
    }
    Ok(Outcome::Passed)
}
