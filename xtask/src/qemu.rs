//! One virtual machine: a kernel, an initramfs, a command line; the console and the report go to files.
//!
//! Plain emulation: the machines this runs on have no KVM. All processors of a guest share one thread: with a
//! thread each, QEMU 7.2 now and then runs into an instruction the kernel is just patching, and the guest dies of
//! `int3`. `no_timer_check`, because a busy host makes the kernel doubt the emulated timer. The limit is for a guest
//! that hangs.

use crate::kernels::Kernel;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What to boot.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) initrd: &'a Path,
    /// Appended to what every boot has; `panic=` in it wins.
    pub(crate) append: &'a str,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) limit: Duration,
    /// What the guest says on the console when it has come to where it stays, until it is ended.
    pub(crate) stays: Option<&'a str>,
    /// Where the console and the report are left.
    pub(crate) folder: &'a Path,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Run {
    /// Everything on the first serial port.
    pub(crate) console: String,
    /// Everything on the second.
    pub(crate) report: String,
    pub(crate) seconds: f64,
    /// The guest had not ended within the limit.
    pub(crate) cut_off: bool,
    /// The guest said what it says where it stays, and did not end by itself.
    pub(crate) stayed: bool,
}

impl Run {
    /// What was left in two files.
    pub(crate) fn read(console: &Path, report: &Path, took: Duration, cut_off: bool) -> Result<Run> {
        let text = |path: &Path| {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Run {
            console: text(console)?,
            report: text(report)?,
            seconds: took.as_secs_f64(),
            cut_off,
            stayed: false,
        })
    }

    /// Whether the kernel came so far as to start a program of the image.
    pub(crate) fn started(&self) -> bool {
        self.console.contains("Run /") || !self.report.is_empty()
    }
}

impl Machine<'_> {
    /// Boots and waits until the guest has powered off, rebooted, or panicked.
    pub(crate) fn run(&self) -> Result<Run> {
        self.run_with("single")
    }

    /// The same with a thread for each processor, where time is measured and an accident now and then is no harm.
    pub(crate) fn run_in_parallel(&self) -> Result<Run> {
        self.run_with("multi")
    }

    fn run_with(&self, threads: &str) -> Result<Run> {
        let (console, report) = (self.folder.join("console.txt"), self.folder.join("report.json"));
        let serial = |path: &Path, id: &str| format!("file,id={id},path={}", path.display());
        let begun = Instant::now();
        let mut child = Command::new("qemu-system-x86_64")
            .args([
                "-machine",
                "pc",
                "-accel",
                &format!("tcg,thread={threads}"),
                "-cpu",
                "max",
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-m", &format!("{}M", self.memory_mib), "-smp", &self.cpus.to_string()])
            .args(["-chardev", &serial(&console, "console"), "-serial", "chardev:console"])
            .args(["-chardev", &serial(&report, "report"), "-serial", "chardev:report"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initrd)
            .args(["-append", &format!("console=ttyS0 panic=-1 no_timer_check {}", self.append)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run qemu-system-x86_64 (Debian package qemu-system-x86)")?;
        let said = match self.stays {
            Some(words) => said(&child, &console, words, begun + self.limit)?,
            None => false,
        };
        let limit = if said { STAYS } else { self.limit.saturating_sub(begun.elapsed()) };
        let ended = wait(&mut child, limit)?.is_some();
        let run = Run::read(&console, &report, begun.elapsed(), !ended && !said)?;
        Ok(Run { stayed: !ended && said, ..run })
    }
}

/// For so long a guest must stay where it says that it stays.
const STAYS: Duration = Duration::from_secs(2);

/// Waits until the guest has said something on its console; `false` where it ended or the time was over before.
fn said(child: &Child, console: &Path, words: &str, until: Instant) -> Result<bool> {
    let handle = handle(child)?;
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("inotify")?;
    // It may not be there yet, and comes into the folder then.
    let folder = console.parent().context("a console in a folder")?;
    inotify::add_watch(&watch, folder, WatchFlags::MODIFY | WatchFlags::CREATE).context("inotify")?;
    loop {
        let text = std::fs::read(console).unwrap_or_default();
        if String::from_utf8_lossy(&text).contains(words) {
            return Ok(true);
        }
        let Some(left) = until.checked_duration_since(Instant::now()) else { return Ok(false) };
        let mut awaited = [PollFd::new(&handle, PollFlags::IN), PollFd::new(&watch, PollFlags::IN)];
        match poll(&mut awaited, Some(&Timespec::try_from(left)?)) {
            Ok(_) if !awaited[0].revents().is_empty() => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("poll of the machine"),
        }
        // Only that there is something matters.
        while rustix::io::read(&watch, &mut [0; 4096]).is_ok() {}
    }
}

fn handle(child: &Child) -> Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the machine has no pid")?;
    pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open of the machine")
}

/// Waits for a child; ends it and gives nothing when it takes too long.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let handle = handle(child)?;
    let timeout = Timespec { tv_sec: i64::try_from(limit.as_secs())?, tv_nsec: 0 };
    let ended = loop {
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => break ready > 0,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("poll of the machine"),
        }
    };
    if !ended {
        child.kill().context("cannot end the machine")?;
    }
    let status = child.wait().context("wait for the machine")?;
    Ok(ended.then_some(status))
}
