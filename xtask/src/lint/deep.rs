//! `cargo xtask lint --deep`: what finds undefined behavior and races, and takes minutes.

use super::toolchain::{nightly_lacks, with};
use super::{Check, Outcome, passed};
use anyhow::Result;
use repot_harness::command::run;
use repot_harness::place;

pub(super) const CHECKS: [Check; 1] = [("Miri", miri)];

/// Unit tests that only need a longer time than Miri gives them.
const TOO_SLOW: [&str; 2] = ["--skip", "ten_gibibytes"];

/// The library's unit tests: the parsers, the plan, the table of hard links, the index, the archive.
fn miri() -> Result<Outcome> {
    if let Some(why) = nightly_lacks(&["miri", "rust-src"]) {
        return Ok(Outcome::Skipped(why));
    }
    let mut cargo = with("nightly");
    cargo.args(["miri", "test", "--quiet", "--package=repot", "--lib", "--features=index", "--"]);
    cargo.args(TOO_SLOW).env("CARGO_TARGET_DIR", place::kept("deep/miri")?);
    run(&mut cargo).map(passed)
}
