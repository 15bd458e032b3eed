//! `repot rehearse`: a copy of a directory, moved for real, and compared.
//!
//! For each kind of initial root, this program starts itself again through `unshare(1)` as process 1 of a
//! mount and a pid namespace of its own, copies the directory onto a fresh ramfs or tmpfs, makes that its
//! root, and calls the library. The machine's own mounts are never touched.

mod snapshot;

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use repot::facts::{self, Site};
use repot::options::Options;
use repot::program::Candidate;

use self::snapshot::Snapshot;
use crate::cli::Rehearse;
use crate::{plan, report, size};

/// How many differences are shown.
const SHOWN: usize = 20;

/// Runs the command.
pub fn run(args: &Rehearse) -> Result<()> {
    if let Some(kind) = &args.inside {
        return inside(args, kind);
    }
    ensure!(rustix::process::geteuid().is_root(), "a rehearsal mounts file systems: it needs root");
    ensure!(args.directory.is_dir(), "{} is no directory", args.directory.display());
    let program = env::current_exe().context("cannot find this program")?;
    // The two mounts of a namespace are gone with it; the directory they were on is removed here.
    let stage = tempfile::tempdir().context("cannot make a temporary directory")?;
    for kind in ["ramfs", "tmpfs"] {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--propagation", "private", "--"]).arg(&program);
        command.arg("rehearse").arg(&args.directory).args(["--inside", kind, "--stage"]).arg(stage.path());
        if let Some(memory) = args.memory {
            command.args(["--memory", &format!("{}K", memory >> 10)]);
        }
        let status = command.status().context("cannot run unshare (Debian: apt install util-linux)")?;
        if !status.success() {
            return Err(crate::Reported.into());
        }
    }
    Ok(())
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
    facts.unpacking = repot::unpacking::Unpacking::default();
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
    let ready = repot::rehome(&site, &facts, &plan, &|_| (), &|_| ())?;
    let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
    report::warn(&ready.warnings);

    let differences = before.differences(&Snapshot::take(root)?);
    let row = |name: &str, value: String| (name.to_string(), value);
    let bytes = ready.progress.bytes.load(Ordering::Relaxed);
    let old_root = if ready.empty { "empty" } else { "NOT empty" };
    let rows = [
        row("from", format!("{} to tmpfs, {} threads", plan::name(facts.rootfs), plan.threads)),
        row("entries", before.len().to_string()),
        row("data", size::human(bytes)),
        row("time", format!("{milliseconds:.1} ms")),
        row("in both at most", size::human(ready.progress.peak.load(Ordering::Relaxed))),
        row("old root", old_root.into()),
        row(
            "differences",
            if differences.is_empty() { "none".into() } else { differences.len().to_string() },
        ),
    ];
    let mut text = report::table(&rows);
    for line in differences.iter().take(SHOWN) {
        text += &format!("  {line}\n");
    }
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    ensure!(differences.is_empty() && ready.empty, "the move on {kind} was not faithful");
    Ok(())
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
