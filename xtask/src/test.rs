//! `cargo xtask test`: runs all tests through `cargo test`, and counts them.

use anyhow::{Context, Result, bail, ensure};
use repot_harness::build::{self, Arch};
use repot_harness::command::cargo;
use repot_harness::debian;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Packages without tests. The init and the runner have their own panic handler, so they cannot be built
/// for tests at all.
const WITHOUT_TESTS: [&str; 5] = ["repot-init", "repot-run", "repot-bench", "bench-guest", "decoders"];

/// What to run.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    /// Part of a test's or boot's name.
    pub(crate) filter: &'a str,
    /// Skip the boots.
    pub(crate) no_vm: bool,
    /// Virtual machines at a time.
    pub(crate) jobs: usize,
}

/// The number of tests.
#[derive(Debug, Default)]
struct Score {
    passed: usize,
    failed: usize,
}

/// Runs the tests, prints how many passed and failed as the last line, and returns whether all passed.
pub(crate) fn test(choice: &Choice) -> Result<bool> {
    let Choice { filter, no_vm, jobs } = *choice;
    if !no_vm {
        debian::need_root("building the images of the boots (skip them with --no-vm)")?;
    }
    let vm: &[debian::Tool] = if no_vm { &[] } else { &[debian::QEMU] };
    debian::need(&[&[debian::FILE], &debian::TESTS[..], vm].concat())?;
    let mounts = host_mounts()?;
    let mut cargo = cargo_test();
    if filter.is_empty() {
        if let Err(why) = build::have("i686-unknown-linux-musl") {
            println!("{why:#}; skipping the test of a 32-bit init");
        }
        // Otherwise each test program that needs an init would call cargo once more.
        cargo.env("REPOT_INIT", build::init(Arch::X86_64)?);
        cargo.env("REPOT_INIT_PAYLOAD", build::init_payload(Arch::X86_64)?);
        cargo.env("REPOT_RUN", build::runner(Arch::X86_64)?);
    } else {
        cargo.args(["--", filter]);
    }
    if no_vm {
        cargo.env("REPOT_NO_VM", "1");
    }
    let mut score = run_and_count(cargo.env("REPOT_VM_JOBS", jobs.to_string()))?;
    if host_mounts()? == mounts {
        println!("test host mounts untouched ... ok");
        score.passed += 1;
    } else {
        println!("test host mounts untouched ... FAILED: /proc/self/mountinfo has changed");
        score.failed += 1;
    }
    println!("{} passed, {} failed", score.passed, score.failed);
    Ok(score.failed == 0)
}

/// Runs the boots alone; those of long tables too if `all`.
pub(crate) fn boots(filter: &str, jobs: usize, all: bool) -> Result<()> {
    let mut cargo = cargo_test();
    if all {
        cargo.env("REPOT_ALL_BOOTS", "1");
    }
    cargo.args(["--test=boots", "--", "--test-threads", &jobs.to_string(), filter]);
    let status = cargo.stdin(Stdio::null()).status().context("cannot run cargo test")?;
    ensure!(status.success(), "the boots ended with {status}");
    Ok(())
}

/// Selects the same packages for all and for a few tests, or cargo would build the dependencies with other
/// features.
fn cargo_test() -> Command {
    let mut cargo = cargo();
    cargo.args(["test", "--quiet", "--no-fail-fast", "--workspace"]);
    for package in WITHOUT_TESTS {
        cargo.args(["--exclude", package]);
    }
    cargo
}

fn host_mounts() -> Result<String> {
    std::fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")
}

/// Runs `cargo test` and adds up the last lines of its test programs.
fn run_and_count(cargo: &mut Command) -> Result<Score> {
    let mut child =
        cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let (mut programs, mut score) = (0, Score::default());
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("output of cargo test")?;
        let text = String::from_utf8_lossy(&line);
        if let Some(last) = last_line(&text) {
            programs += 1;
            score.passed += last.passed;
            score.failed += last.failed;
        }
        writeln!(std::io::stdout(), "{text}").context("standard output")?;
    }
    let status = child.wait().context("wait for cargo test")?;
    if programs == 0 {
        bail!("cargo test ran nothing ({status}): the tests do not build");
    }
    if !status.success() && score.failed == 0 {
        // A test program that crashes prints no last line.
        println!("test program of cargo test ... FAILED: {status}, see above");
        score.failed += 1;
    }
    Ok(score)
}

/// `test result: ok. 5 passed; 0 failed; 0 ignored; …`
fn last_line(line: &str) -> Option<Score> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut numbers = counts.split("; ").filter_map(|part| part.split_once(' ')?.0.parse().ok());
    Some(Score { passed: numbers.next()?, failed: numbers.next()? })
}

#[cfg(test)]
mod tests {
    use super::last_line;

    #[test]
    fn the_last_lines_of_test_programs_are_parsed() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert!(last_line(line).is_some_and(|score| score.passed == 5 && score.failed == 2));
        assert!(last_line("test boots ... ok").is_none());
    }
}
