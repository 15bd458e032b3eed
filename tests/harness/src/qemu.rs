//! One virtual machine: a kernel, an initramfs and a command line. The console and the report go to files.
//!
//! QEMU emulates without KVM, which the machines that run this do not have. All CPUs of a guest share one
//! thread: with a thread each, QEMU 7.2 sometimes runs into an instruction that the kernel is patching, and
//! the guest dies of `int3`. The time limit is for a guest that hangs.

use crate::emulator;
use crate::kernels::Kernel;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What to boot.
#[derive(Debug)]
pub struct Machine<'a> {
    /// What QEMU starts.
    pub kernel: &'a Kernel,
    /// The initramfs.
    pub initrd: &'a Path,
    /// Appended to the command line of every boot. A `panic=` in it wins.
    pub append: &'a str,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of CPUs.
    pub cpus: u32,
    /// QEMU is killed after this time.
    pub limit: Duration,
    /// What the guest prints when it stays running on purpose. QEMU is killed soon after.
    pub stays: Option<&'a str>,
    /// A file that holds the memory of the guest afterwards.
    pub memory: Option<&'a Path>,
    /// The directory of `console.txt` and `report.json`.
    pub folder: &'a Path,
}

/// The result of a boot.
#[derive(Debug)]
pub struct Run {
    /// The output of the first serial port.
    pub console: String,
    /// The output of the second serial port, or what the guest sent over its console instead.
    pub report: String,
    /// How long it took.
    pub seconds: f64,
    /// The guest did not end within the limit.
    pub cut_off: bool,
    /// The guest printed the text of [`Machine::stays`] and did not end by itself.
    pub stayed: bool,
}

impl Run {
    /// Reads the two files that a boot left.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(console: &Path, report: &Path, took: Duration, cut_off: bool) -> Result<Run> {
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

    /// Whether the kernel started a program of the image.
    #[must_use]
    pub fn started(&self) -> bool {
        self.console.contains("Run /") || !self.report.is_empty()
    }

    /// The kernel's message if its own code crashed (`die`, which counts its calls: `[#1]`). A program that
    /// the kernel killed, or memory that ran out, is no crash.
    #[must_use]
    pub fn crash(&self) -> Option<&str> {
        self.console.lines().find(|line| line.contains(" [#1] "))
    }
}

impl Machine<'_> {
    /// Boots, and waits until the guest powers off, reboots, or panics.
    ///
    /// # Errors
    /// If QEMU cannot be run.
    pub fn run(&self) -> Result<Run> {
        self.run_with("single")
    }

    /// Does the same with a thread for each CPU. Faster, but now and then the guest crashes: for benchmarks
    /// only.
    ///
    /// # Errors
    /// If QEMU cannot be run.
    pub fn run_in_parallel(&self) -> Result<Run> {
        self.run_with("multi")
    }

    fn run_with(&self, threads: &str) -> Result<Run> {
        let (console, report) = (self.folder.join("console.txt"), self.folder.join("report.json"));
        let serial = |path: &Path, id: &str| format!("file,id={id},path={}", path.display());
        let begun = Instant::now();
        let platform = self.kernel.arch.platform();
        let mut command = emulator::program(self.kernel.arch)?;
        if let Some(file) = self.memory {
            let backend = format!(
                "memory-backend-file,id=ram,size={}M,mem-path={},share=on",
                self.memory_mib,
                file.display()
            );
            command.args(["-object", &backend, "-machine", "memory-backend=ram"]);
        }
        command
            .args(["-machine", platform.machine, "-cpu", platform.cpu])
            .args([
                "-accel",
                &format!("tcg,thread={threads}"),
                "-nodefaults",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-m", &format!("{}M", self.memory_mib), "-smp", &self.cpus.min(platform.cpus).to_string()])
            .args(["-chardev", &serial(&console, "console"), "-serial", "chardev:console"]);
        if platform.second_port {
            command.args(["-chardev", &serial(&report, "report"), "-serial", "chardev:report"]);
        }
        let line = format!("console={} panic=-1 {} {}", platform.console, platform.parameters, self.append);
        let mut child = command
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initrd)
            .args(["-append", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", platform.qemu.0))?;
        let printed = match self.stays {
            Some(words) => has_printed(&child, &console, words, begun + self.limit)?,
            None => false,
        };
        let limit = if printed { STAYS } else { self.limit.saturating_sub(begun.elapsed()) };
        let ended = wait(&mut child, limit)?.is_some();
        if !platform.second_port {
            take_report(&console, &report)?;
        }
        let run = Run::read(&console, &report, begun.elapsed(), !ended && !printed)?;
        Ok(Run { stayed: !ended && printed, ..run })
    }
}

/// What begins a line of the report where it goes over the console: not every machine has a second serial
/// port.
pub const REPORT: &str = "probe-report ";

/// Moves the lines of the report out of the console into a file of their own.
fn take_report(console: &Path, report: &Path) -> Result<()> {
    let bytes = std::fs::read(console).with_context(|| format!("cannot read {}", console.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| line.trim_end_matches('\r').strip_prefix(REPORT).map(str::to_owned);
    let (mut kept, mut taken) = (String::new(), String::new());
    for one in text.lines() {
        let (to, one) = match line(one) {
            Some(one) => (&mut taken, one),
            None => (&mut kept, one.to_owned()),
        };
        *to += &one;
        to.push('\n');
    }
    std::fs::write(console, kept).context("the console")?;
    std::fs::write(report, taken).context("the report")
}

/// A guest that stays running on purpose must do so for at least this long.
const STAYS: Duration = Duration::from_secs(2);

/// Waits until the guest prints `words` on its console. Returns `false` if it ends or the time runs out
/// first.
fn has_printed(child: &Child, console: &Path, words: &str, until: Instant) -> Result<bool> {
    let handle = handle(child)?;
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("inotify")?;
    // QEMU may not have created the file yet, so the directory is watched.
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
        // The events themselves do not matter: the file is read again.
        while rustix::io::read(&watch, &mut [0; 4096]).is_ok() {}
    }
}

fn handle(child: &Child) -> Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("the machine has no pid")?;
    pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open of the machine")
}

/// Waits for a child. Kills it and returns `None` if it takes too long.
///
/// # Errors
/// If the child cannot be waited for or killed.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
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
        child.kill().context("cannot kill the machine")?;
    }
    let status = child.wait().context("wait for the machine")?;
    Ok(ended.then_some(status))
}
