//! One run of one contender on one tree.

use super::arena::{Arena, with_arena};
use super::contenders::{Contender, Way};
use super::guest_output::GuestOutput;
use super::memory::{Memory, Sampler};
use super::programs;
use super::sys::{self, Launch};
use super::trees::Tree;
use super::warm::Free;
use anyhow::{Context, Result, bail};
use repot_harness::command;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The maximum an entry takes besides its contents, in bytes; and a reserve for everything else.
const PER_ENTRY: u64 = 4096;
const SPARE: u64 = 256 << 20;

/// Longer than any run.
const LIMIT: Duration = Duration::from_secs(600);

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// CPU seconds.
    pub(crate) own: f64,
    /// Why it was not a complete move.
    pub(crate) flaw: Option<String>,
    /// Number of entries of the tree.
    pub(crate) entries: u64,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Memory besides the tree, if it was measured.
    pub(crate) memory: Option<Memory>,
    /// The output.
    pub(crate) log: String,
}

/// How to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// "ramfs" or "tmpfs".
    pub(crate) root: &'a str,
    /// The init in the tree if the contender is not one.
    pub(crate) init: &'a Path,
    /// Measure the memory, which slows the run down.
    pub(crate) sample: bool,
    /// The state of free memory.
    pub(crate) free: Free,
    /// A program that attaches to PID 1 before it starts. `{pid}` is replaced.
    pub(crate) tracer: &'a [String],
}

/// Fills an arena, and runs the contender in it.
pub(crate) fn run(contender: &Contender, tree: &Tree, terms: Terms<'_>) -> Result<Outcome> {
    let work = |arena: &Arena| {
        tree.fill(&arena.old)?;
        contender.furnish(arena, terms.init)?;
        let expected = tally(&arena.old)?;
        let mut numbers = expected.split(' ').filter_map(|number| number.parse::<u64>().ok());
        let (entries, bytes) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let held = terms.free.prepare(2 * (bytes + entries * PER_ENTRY) + SPARE)?;
        let sampler = if terms.sample { Some(Sampler::start()?) } else { None };
        let (told, log) = match &contender.way {
            Way::Init { .. } => as_init(arena, terms.tracer)?,
            Way::Script(_) | Way::Guest { .. } => as_command(contender, arena)?,
        };
        let memory = sampler.map(Sampler::stop).transpose()?;
        drop(held);
        let said = || format!("{} on {}: {log}", contender.name, tree.name);
        let (seconds, own) = told.seconds().with_context(said)?;
        let found = match told.word("tally") {
            Some(found) => found.to_owned(),
            None if terms.tracer.is_empty() => tally(&arena.new)?,
            None => expected.clone(),
        };
        let moved = told.word("root").is_none_or(|magic| magic == "0x1021994");
        let flaw = if contender.moves() && terms.root == "ramfs" && !moved {
            Some("the root is not a tmpfs".to_owned())
        } else if found != expected {
            Some(format!("not the same tree: {expected} before, {found} after"))
        } else {
            None
        };
        Ok(Outcome { seconds, own, flaw, entries, bytes, memory, log })
    };
    with_arena(terms.root, &[], work).with_context(|| format!("{} on {}", contender.name, tree.name))
}

fn tally(root: &Path) -> Result<String> {
    let said = command::read(Command::new(programs::guest()?).arg("tally").arg(root))?;
    GuestOutput::new(said.as_bytes()).word("tally").map(str::to_owned).context("the guest printed no tally")
}

fn as_command(contender: &Contender, arena: &Arena) -> Result<(GuestOutput, String)> {
    let mut command = contender.command(arena)?.context("not a command")?;
    let stamp = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        format!("{} {}", time.tv_sec * 1_000_000_000 + time.tv_nsec, sys::children())
    };
    let start = stamp();
    let output = command.stdin(Stdio::null()).output().context("cannot run it")?;
    let end = stamp();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("ended with {}: {}", output.status, log.trim());
    }
    // A program that reports its own times overrides these lines.
    let mut text = format!("bench start {start}\nbench end {end}\n").into_bytes();
    text.extend_from_slice(&output.stdout);
    Ok((GuestOutput::new(&text), log))
}

fn as_init(arena: &Arena, tracer: &[String]) -> Result<(GuestOutput, String)> {
    let (output, told) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
    let (wait, go) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
    let nothing = File::open("/dev/null").context("/dev/null")?;
    let mut log = tempfile()?;
    let root = CString::new(arena.old.as_os_str().as_bytes())?;
    let program = CString::new("/init")?;
    let stdio = [nothing.as_fd(), told.as_fd(), log.as_fd()];
    let only = !tracer.is_empty();
    let launch = Launch { root: &root, program: &program, stdio, only, go: wait.as_fd() };
    let (pid, process) = sys::spawn(&launch).context("clone3")?;
    drop(told);
    let mut attached = None;
    if let [program, words @ ..] = tracer {
        let pid = pid.as_raw_pid().to_string();
        let words = words.iter().map(|word| word.replace("{pid}", &pid));
        let child = Command::new(program).args(words).stdin(Stdio::null()).spawn();
        attached = Some(child.with_context(|| format!("cannot run {program}"))?);
        traced(&pid)?;
    }
    File::from(go).write_all(b"1").context("the start")?;
    let heard = hear(output);
    // The stand-in exits by itself. Other processes may not.
    let _ = pidfd_send_signal(&process, Signal::KILL);
    waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED).context("waitid")?;
    if let Some(mut tracer) = attached {
        tracer.wait().context("the tracer")?;
    }
    let mut text = String::new();
    log.rewind()?;
    log.read_to_string(&mut text)?;
    let heard = heard.with_context(|| text.clone())?;
    Ok((GuestOutput::new(&heard), text))
}

/// Waits until a tracer is attached to the process.
fn traced(pid: &str) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        if status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("nothing was attached to process {pid} within 10 s")
}

/// Reads the pipe until its other end is closed.
fn hear(output: OwnedFd) -> Result<Vec<u8>> {
    let start = Instant::now();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let Some(left) = LIMIT.checked_sub(start.elapsed()) else {
            bail!("it was not done within {LIMIT:?}")
        };
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&Timespec::try_from(left)?)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error).context("poll"),
        }
        match rustix::io::read(&output, &mut buffer).context("read")? {
            0 => return Ok(text),
            read => text.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Memory that can be written like a file and outlives the process that writes.
fn tempfile() -> Result<File> {
    Ok(rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).context("memfd_create")?.into())
}
