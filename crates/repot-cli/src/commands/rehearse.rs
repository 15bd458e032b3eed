//! `repot rehearse`: a copy of a directory, moved for real, and compared.
//!
//! For each kind of initial root, this program starts itself again through `unshare(1)` as process 1 of a
//! mount and a pid namespace of its own, copies the directory onto a fresh ramfs or tmpfs, makes that its
//! root, and calls the library. The machine's own mounts are never touched.

mod snapshot;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use repot::facts;
use repot::facts::program::Candidate;
use repot::options::Options;
use repot::site::Site;
use serde::Serialize;

use self::snapshot::Snapshot;
use super::plan;
use crate::cli::Rehearse;
use crate::ram::Footprint;
use crate::report::{self, size};
use crate::source::directory;

/// How many differences are shown.
const SHOWN: usize = 20;

/// Runs the command.
pub fn run(args: &Rehearse) -> Result<()> {
    if let Some(kind) = &args.inside {
        return inside(args, kind);
    }
    ensure!(rustix::process::geteuid().is_root(), "a rehearsal mounts file systems: it needs root");
    ensure!(args.directory.is_dir(), "{} is no directory", args.directory.display());
    room(&args.directory)?;
    let program = env::current_exe().context("cannot find this program")?;
    // The two mounts of a namespace are gone with it; the directory they were on is removed here.
    let stage = tempfile::tempdir().context("cannot make a temporary directory")?;
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

/// The copy lies in memory that nothing can be paged out of: it must leave some to the machine.
fn room(directory: &Path) -> Result<()> {
    let needs = Footprint::of(&directory::scan(directory)?.tree).unpacked();
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = available.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let available = available.context("/proc/meminfo does not say how much memory is available")? << 10;
    ensure!(
        needs < available / 4 * 3,
        "{} takes {} in memory, and this machine has {} to spare",
        directory.display(),
        size::human(needs),
        size::human(available / 4 * 3)
    );
    Ok(())
}

/// What a rehearsal found.
#[derive(Debug, Serialize)]
struct Findings {
    from: &'static str,
    threads: u32,
    entries: usize,
    bytes: u64,
    milliseconds: f64,
    /// The most that was in both trees at a time.
    extra: u64,
    old_root_empty: bool,
    differences: Vec<String>,
}

/// The rehearsal on one kind of root, in namespaces of its own.
fn inside(args: &Rehearse, kind: &str) -> Result<()> {
    let stage = args.stage.as_deref().context("--stage is missing")?;
    ensure!(rustix::process::getpid().is_init(), "--inside is for this program's own use");
    copy(&args.directory, stage, kind)?;
    enter(stage)?;
    let root = Path::new("/");
    let before = Snapshot::take(root)?;

    let site = Site::open()?;
    let options = Options::read(Some(b"mode=move\n"), &[]);
    let mut facts = facts::look(&site, &options)?;
    // What runs afterwards is not rehearsed, nor is how the kernel unpacked this machine's initramfs.
    facts.candidates = vec![Candidate { path: b"/".to_vec(), why: None }];
    facts.unpacking = repot::facts::unpacked::Unpacking::default();
    if let Some(memory) = args.memory {
        facts.memory.total = memory;
        facts.memory.available = facts.memory.available.min(memory.saturating_sub(facts.survey.bytes));
    }
    let plan = repot::plan::plan(&facts, &options).map_err(|refusal| anyhow!("{refusal}"))?;
    report::warn(&plan.warnings);
    if plan.method.name() != "move" {
        bail!("on {kind}, repot would not move it: {}", plan.reason);
    }
    let began = Instant::now();
    let ready = repot::ladder::carry_out(&site, &facts, &plan, &|_| (), &|_| ())?;
    let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
    report::warn(&ready.warnings);

    let differences = before.differences(&Snapshot::take(root)?);
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
    report::print(&if args.json { json()? } else { words(&findings) })?;
    ensure!(faithful, "the move on {kind} was not faithful");
    Ok(())
}

fn words(findings: &Findings) -> String {
    let row = |name: &str, value: String| (name.to_string(), value);
    let old_root = if findings.old_root_empty { "empty" } else { "NOT empty" };
    let count = findings.differences.len();
    let rows = [
        row("from", format!("{} to tmpfs, {} threads", findings.from, findings.threads)),
        row("entries", findings.entries.to_string()),
        row("data", size::human(findings.bytes)),
        row("time", format!("{:.1} ms", findings.milliseconds)),
        row("in both at most", size::human(findings.extra)),
        row("old root", old_root.into()),
        row("differences", if count == 0 { "none".into() } else { count.to_string() }),
    ];
    let mut text = report::table(&rows);
    for line in findings.differences.iter().take(SHOWN) {
        text += &format!("  {line}\n");
    }
    text
}

/// Copies the directory, without what is mounted in it, onto a fresh file system at `stage`.
fn copy(directory: &Path, stage: &Path, kind: &str) -> Result<()> {
    let data = if kind == "tmpfs" { Some(c"size=90%,nr_inodes=0,mode=755") } else { None };
    rustix::mount::mount("repot", stage, kind, rustix::mount::MountFlags::empty(), data)
        .with_context(|| format!("cannot mount a {kind}"))?;
    let status = Command::new("cp").args(["-a", "-x", "--"]).arg(directory.join(".")).arg(stage).status();
    ensure!(status.context("cannot run cp")?.success(), "cannot copy {} onto a {kind}", directory.display());
    Ok(())
}

/// Makes the file system at `stage` the root, as switch_root does.
fn enter(stage: &Path) -> Result<()> {
    env::set_current_dir(stage).context("cannot enter the copy")?;
    rustix::mount::mount_move(".", "/").context("cannot move the copy onto /")?;
    rustix::process::chroot(".").context("cannot make the copy the root")?;
    env::set_current_dir("/").context("cannot enter the root")
}
