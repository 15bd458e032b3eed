//! `cargo xtask test`: the workspace's tests, what is held about the init itself, and the boots.

use crate::boots::{self, Score};
use crate::command::read;
use crate::tool::Tool;
use crate::{debian, dist, images, place};
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// The init is a part of every image, and unpacked before anything else can run.
const CEILING: u64 = 400_000;
/// The same for the one that unpacks payloads.
const PAYLOAD_CEILING: u64 = 700_000;

/// What to run.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    /// Part of a test's or boot's name.
    pub(crate) filter: &'a str,
    /// No virtual machines.
    pub(crate) no_vm: bool,
    /// Machines at a time.
    pub(crate) jobs: usize,
}

/// Runs the tests, says last how many passed and failed on a line of its own, and gives whether all passed.
pub(crate) fn test(choice: &Choice) -> Result<bool> {
    if !choice.no_vm {
        debian::need_root("making the boots' images (leave them out with --no-vm)")?;
    }
    let vm = [debian::QEMU];
    let vm = if choice.no_vm { &[][..] } else { &vm };
    debian::need(&[&[debian::FILE], &debian::TESTS[..], vm].concat())?;
    if let Err(why) = dist::have("i686-unknown-linux-musl") {
        println!("{why:#}; the test of a 32-bit init is left out");
    }
    let mounts = host_mounts()?;
    let (init, probe) = (dist::init(dist::Arch::X86_64)?, dist::probe()?);
    let payload = dist::init_payload(dist::Arch::X86_64)?;
    let mut score = Score::default();
    if choice.filter.is_empty() {
        let of_payload = ("init-payload", &payload, PAYLOAD_CEILING);
        for (init, path, ceiling) in [("init", &init, CEILING), of_payload] {
            note(&mut score, &format!("{init} size"), size(path, ceiling));
            note(&mut score, &format!("{init} linkage"), linkage(path));
        }
    }
    if "tool".contains(choice.filter) {
        note(&mut score, "tool linkage and init", tool(&init));
    }
    cargo_test(choice.filter, [&init, &payload, &probe], &mut score)?;
    if !choice.no_vm {
        let images = images::run(choice.filter, choice.jobs)?;
        score.passed += images.passed;
        score.failed += images.failed;
        let boots = boots::run(choice.filter, choice.jobs)?;
        score.passed += boots.passed;
        score.failed += boots.failed;
    }
    let same = || -> Result<()> {
        ensure!(host_mounts()? == mounts, "the host's mounts are not what they were before the tests");
        Ok(())
    };
    note(&mut score, "host mounts untouched", same());
    println!("{} passed, {} failed", score.passed, score.failed);
    Ok(score.failed == 0)
}

fn note(score: &mut Score, name: &str, result: Result<()>) {
    match result {
        Ok(()) => {
            println!("test {name} ... ok");
            score.passed += 1;
        }
        Err(error) => {
            println!("test {name} ... FAILED: {error:#}");
            score.failed += 1;
        }
    }
}

fn size(init: &Path, ceiling: u64) -> Result<()> {
    let size = std::fs::metadata(init)?.len();
    ensure!(size < ceiling, "it has {size} bytes, and {ceiling} are too many");
    Ok(())
}

fn linkage(init: &Path) -> Result<()> {
    let linkage = dist::linkage(init)?;
    ensure!(linkage == "static-pie", "it is {linkage}, not static-pie");
    let said = read(Command::new("file").arg("--brief").arg(init))?;
    ensure!(said.contains("static-pie linked") && said.contains("stripped"), "file says: {said}");
    Ok(())
}

/// The released tool is one static program that holds the init: alone in a directory, with nothing that says where
/// an init might be, it packs the one that is released.
fn tool(init: &Path) -> Result<()> {
    let built = dist::tool()?;
    let linkage = dist::linkage(&built)?;
    ensure!(linkage == "static-pie", "it is {linkage}, not static-pie");
    let alone = place::fresh("alone")?;
    std::fs::create_dir_all(alone.join("root"))?;
    std::fs::copy(&built, alone.join("tool")).context("cannot copy the tool")?;
    Tool::at(alone.join("tool")).run(&alone, &["pack", "root", "-o", "image", "--compress", "none"])?;
    let image = std::fs::read(alone.join("image")).context("cannot read the image")?;
    let init = std::fs::read(init).context("cannot read the init")?;
    // Plain newc, and the first member is /init: its contents follow its name.
    let place = image
        .get(..4096.min(image.len()))
        .and_then(|head| head.windows(4).position(|four| four == b"\x7fELF"));
    let packed = place.and_then(|place| image.get(place..place + init.len()));
    ensure!(packed == Some(&init[..]), "what it packed as /init is not the init that is released");
    Ok(())
}

fn host_mounts() -> Result<String> {
    std::fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")
}

/// Runs `cargo test` and adds up its closing lines.
fn cargo_test(filter: &str, [init, payload, probe]: [&Path; 3], score: &mut Score) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(place::checkout()).args(["test", "--quiet", "--no-fail-fast"]);
    if !filter.is_empty() {
        command.args(["--", filter]);
    }
    command.env("REPOT_INIT", init).env("REPOT_INIT_PAYLOAD", payload).env("REPOT_PROBE", probe);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut programs = 0;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("output of cargo test")?;
        let text = String::from_utf8_lossy(&line);
        if let Some(closing) = closing(&text) {
            programs += 1;
            score.passed += closing.passed;
            score.failed += closing.failed;
        }
        writeln!(std::io::stdout(), "{text}").context("standard output")?;
    }
    let status = child.wait().context("wait for cargo test")?;
    if programs == 0 {
        bail!("cargo test ran nothing ({status}): the tests do not build");
    }
    if !status.success() && score.failed == 0 {
        // A test program that dies has no closing line.
        println!("test program of cargo test ... FAILED: {status}, see above");
        score.failed += 1;
    }
    Ok(())
}

/// `test result: ok. 5 passed; 0 failed; 0 ignored; …`
fn closing(line: &str) -> Option<Score> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut numbers = counts.split("; ").filter_map(|part| part.split_once(' ')?.0.parse().ok());
    Some(Score { passed: numbers.next()?, failed: numbers.next()? })
}

#[cfg(test)]
mod tests {
    use super::closing;

    #[test]
    fn closing_lines_are_read() {
        let line = "test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert!(closing(line).is_some_and(|score| score.passed == 5 && score.failed == 2));
        assert!(closing("test boots ... ok").is_none());
    }
}
