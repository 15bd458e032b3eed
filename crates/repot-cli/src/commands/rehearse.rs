//! `repot rehearse`: moves a copy of a directory for real, and compares.
//!
//! For each type of initial root, this program starts itself again through `unshare(1)` as PID 1 of a new
//! mount and PID namespace, copies the directory onto a fresh ramfs or tmpfs, makes that its root, and calls
//! the library. The machine's own mounts stay as they are.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use repot::facts;
use repot::facts::program::Candidate;
use repot::options::Options;
use repot::site::Site;
use repot_snapshot::{Atime, Holes, Rules, difference, snapshot};
use serde::Serialize;

use super::plan;
use crate::cli::Rehearse;
use crate::ram::Footprint;
use crate::report::{self, size};
use crate::source::directory;

/// Differences that are shown.
const SHOWN: usize = 20;

/// Runs the command.
pub fn run(args: &Rehearse) -> Result<()> {
    if let Some(kind) = &args.inside {
        return inside(args, kind);
    }
    ensure!(rustix::process::geteuid().is_root(), "rehearse needs root, to mount file systems");
    ensure!(args.directory.is_dir(), "{} is not a directory", args.directory.display());
    check_memory(&args.directory)?;
    let program = env::current_exe().context("cannot find this program")?;
    // The mounts end with their namespaces. Only the mount point is left to remove.
    let stage = tempfile::tempdir().context("cannot create a temporary directory")?;
    let mut found: Vec<serde_json::Value> = Vec::new();
    let mut failed = false;
    for kind in ["ramfs", "tmpfs"] {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--propagation", "private", "--"]).arg(&program);
        command.args(["rehearse", "--inside", kind, "--stage"]).arg(stage.path());
        if let Some(memory) = args.memory {
            command.args(["--memory", &format!("{}K", memory >> 10)]);
        }
        if args.json {
            command.arg("--json").stdout(Stdio::piped());
        }
        command.arg("--").arg(&args.directory);
        let child = command.spawn().context("cannot run unshare (Debian: apt install util-linux)")?;
        let out = child.wait_with_output().context("cannot wait for unshare")?;
        found.extend(serde_json::from_slice(&out.stdout).ok());
        if !out.status.success() {
            failed = true;
            break;
        }
    }
    if args.json {
        report::print(&(serde_json::to_string_pretty(&found)? + "\n"))?;
    }
    if failed { Err(crate::errors::Reported.into()) } else { Ok(()) }
}

/// Fails unless the machine has memory to spare: the copy cannot be paged out.
fn check_memory(directory: &Path) -> Result<()> {
    let needs =
        Footprint::of(&directory::scan(directory)?.tree, rustix::param::page_size() as u64).unpacked();
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = available.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let available = available.context("/proc/meminfo has no MemAvailable")? << 10;
    ensure!(
        needs < available / 4 * 3,
        "{} needs {} of memory, but this machine has only {} to spare",
        directory.display(),
        size::human(needs),
        size::human(available / 4 * 3)
    );
    Ok(())
}

/// The result of a rehearsal.
#[derive(Debug, Serialize)]
struct Findings {
    from: &'static str,
    threads: u32,
    entries: usize,
    bytes: u64,
    milliseconds: f64,
    /// Peak extra memory: bytes that were in both trees at once.
    extra: u64,
    old_root_empty: bool,
    differences: Vec<String>,
}

/// The rehearsal on one type of root, in its own namespaces.
fn inside(args: &Rehearse, kind: &str) -> Result<()> {
    let stage = args.stage.as_deref().context("--stage is missing")?;
    ensure!(rustix::process::getpid().is_init(), "--inside is for internal use");
    copy(&args.directory, stage, kind)?;
    enter(stage)?;
    let look = || snapshot(File::open("/")?).context("cannot take a snapshot");
    let before = look()?;

    let site = Site::open()?;
    let options = Options::read(Some(b"mode=move\n"), &[]);
    let mut facts = facts::look(&site, &options)?;
    // Neither the real init nor the kernel's unpacking of this machine's initramfs is part of the rehearsal.
    facts.candidates = vec![Candidate { path: b"/".to_vec(), why: None }];
    facts.unpacking = repot::facts::unpacked::Unpacking::default();
    if let Some(memory) = args.memory {
        facts.memory.total = memory;
        facts.memory.available = facts.memory.available.min(memory.saturating_sub(facts.survey.bytes));
    }
    let plan = repot::plan::plan(&facts, &options).map_err(|refusal| anyhow!("{refusal}"))?;
    report::warn(&plan.warnings);
    if plan.method.name() != "move" {
        bail!("on {kind}, repot would not move the root: {}", plan.reason);
    }
    let began = Instant::now();
    let ready = repot::ladder::carry_out(&site, &facts, &plan, &|_| (), &|_| ())?;
    let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
    report::warn(&ready.warnings);

    // The library may update access times while it inspects the tree.
    let rules = Rules { atime: Atime::Ignored, holes: Holes::Ignored, ..Rules::EXACT };
    let differences: Vec<String> = difference(&before, &look()?, rules).lines().map(str::to_owned).collect();
    let faithful = differences.is_empty() && ready.empty;
    let findings = Findings {
        from: plan::name(facts.rootfs),
        threads: plan.threads,
        entries: before.len(),
        bytes: ready.progress.bytes(),
        milliseconds,
        extra: ready.progress.peak(),
        old_root_empty: ready.empty,
        differences,
    };
    let json = || anyhow::Ok(serde_json::to_string(&findings)?);
    report::print(&if args.json { json()? } else { table(&findings) })?;
    ensure!(faithful, "the move on {kind} was not faithful");
    Ok(())
}

fn table(findings: &Findings) -> String {
    let row = |name: &str, value: String| (name.to_string(), value);
    let old_root = if findings.old_root_empty { "empty" } else { "NOT empty" };
    let count = findings.differences.len();
    let rows = [
        row("from", format!("{} to tmpfs, {} threads", findings.from, findings.threads)),
        row("entries", findings.entries.to_string()),
        row("data", size::human(findings.bytes)),
        row("time", format!("{:.1} ms", findings.milliseconds)),
        row("extra memory", size::human(findings.extra)),
        row("old root", old_root.into()),
        row("differences", if count == 0 { "none".into() } else { count.to_string() }),
    ];
    let mut text = report::table(&rows);
    for line in findings.differences.iter().take(SHOWN) {
        text += &format!("  {line}\n");
    }
    text
}

/// Copies the directory, without the mounts below it, onto a fresh file system at `stage`.
fn copy(directory: &Path, stage: &Path, kind: &str) -> Result<()> {
    let data = if kind == "tmpfs" { Some(c"size=90%,nr_inodes=0,mode=755") } else { None };
    rustix::mount::mount("repot", stage, kind, rustix::mount::MountFlags::empty(), data)
        .with_context(|| format!("cannot mount a {kind}"))?;
    let status = Command::new("cp").args(["-a", "-x", "--"]).arg(directory.join(".")).arg(stage).status();
    ensure!(status.context("cannot run cp")?.success(), "cannot copy {} onto a {kind}", directory.display());
    Ok(())
}

/// Makes the file system at `stage` the root, as `switch_root` does.
fn enter(stage: &Path) -> Result<()> {
    env::set_current_dir(stage).context("cannot enter the copy")?;
    rustix::mount::mount_move(".", "/").context("cannot move the copy onto /")?;
    rustix::process::chroot(".").context("cannot make the copy the root")?;
    env::set_current_dir("/").context("cannot enter the root")
}
