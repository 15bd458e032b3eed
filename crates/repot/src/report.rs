//! What is told, and where: the kernel log, which is there before any device node is.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, openat};
use rustix::io::{Errno, write};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::error::Quoted;
use crate::facts::Facts;
use crate::options;
use crate::plan::Plan;
use crate::relocate::Progress;
use crate::switch::Ready;
use crate::sys;

/// How important a line is, by the numbers of the kernel log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The machine may not come up.
    Error = 3,
    /// Something was done without.
    Warning = 4,
    /// What happened.
    Info = 6,
    /// Each step.
    Debug = 7,
}

/// The log.
#[derive(Debug)]
pub struct Log {
    kernel: Option<OwnedFd>,
    /// How much is written.
    pub amount: options::Log,
}

impl Log {
    /// Opens the kernel log on a machine of its own; elsewhere, in a container, lines go to standard error, since the kernel's
    /// log is not the container's.
    pub fn open(machine: bool) -> Log {
        let kernel = if machine { kernel_log().ok() } else { None };
        Log { kernel, amount: options::Log::Info }
    }

    /// Writes one line.
    pub fn line(&self, level: Level, text: fmt::Arguments<'_>) {
        let wanted = match level {
            Level::Error | Level::Warning => options::Log::Quiet,
            Level::Info => options::Log::Info,
            Level::Debug => options::Log::Debug,
        };
        if wanted > self.amount {
            return;
        }
        let (to, level) = match &self.kernel {
            Some(kernel) => (kernel.as_fd(), Some(level)),
            None => (sys::stream(2), None),
        };
        let mut line = Line { to, level, bytes: [0; RECORD], length: 0 };
        line.begin();
        // It fails only where the text's own Display does.
        let _ = fmt::write(&mut line, text);
        line.put(b"\n");
    }
}

/// The kernel takes less than 1024 bytes at a time (`PRINTKRB_RECORD_MAX`); what is longer becomes several records.
const RECORD: usize = 960;

/// A line on its way. Nothing is allocated for it: it may be about memory that there is none of.
struct Line<'a> {
    to: BorrowedFd<'a>,
    /// That of a record; none where the line goes to a stream, which takes it in parts.
    level: Option<Level>,
    bytes: [u8; RECORD],
    length: usize,
}

impl Line<'_> {
    fn begin(&mut self) {
        if let Some(level) = self.level {
            self.append(&[b'<', b'0' + level as u8, b'>']);
        }
        self.append(b"repot: ");
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn put(&mut self, end: &[u8]) {
        self.append(end);
        put(self.to, &self.bytes[..self.length]);
        self.length = 0;
    }
}

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            let letter = if letter == '\n' { ' ' } else { letter };
            if self.length + letter.len_utf8() >= RECORD {
                if self.level.is_some() {
                    self.put(b"\n");
                    self.begin();
                } else {
                    self.put(b"");
                }
            }
            self.append(letter.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}

/// Writes to standard output.
pub fn tell(text: &str) {
    put(sys::stream(1), text.as_bytes());
}

fn put(to: BorrowedFd<'_>, bytes: &[u8]) {
    while write(to, bytes) == Err(Errno::INTR) {}
}

/// Opens /dev/kmsg although there may be no /dev: a node for it in a tmpfs that is mounted nowhere.
fn kernel_log() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let place = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    mknodat(&place, c"kmsg", FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(1, 11))?;
    openat(&place, c"kmsg", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Bytes in the unit that fits.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bytes(bytes) = *self;
        let tenth = |unit: u64| (bytes / unit, bytes % unit * 10 / unit);
        let ((whole, part), name) = match bytes {
            0..0x400 => return write!(f, "{bytes} B"),
            0x400..0x10_0000 => (tenth(1 << 10), "KiB"),
            0x10_0000..0x4000_0000 => (tenth(1 << 20), "MiB"),
            _ => (tenth(1 << 30), "GiB"),
        };
        write!(f, "{whole}.{part} {name}")
    }
}

/// The one line that tells what happened.
pub fn summary(plan: &Plan, ready: Option<&Ready>, nanoseconds: u64, init: &[u8]) -> String {
    let Plan { method, reason, .. } = plan;
    let head = format!("{}: {reason}", method.name());
    let Some(ready) = ready else { return format!("{head}; executing {}", Quoted(init)) };
    let Progress { entries, bytes, peak, .. } = &ready.progress;
    let milliseconds = match nanoseconds {
        0..10_000_000 => format!("{}.{}", nanoseconds / 1_000_000, nanoseconds / 100_000 % 10),
        _ => format!("{}", nanoseconds / 1_000_000),
    };
    let (entries, bytes) = (entries.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
    let extra = peak.load(Ordering::Relaxed) + ready.resident;
    let old = match (ready.pivoted, ready.empty) {
        _ if !matches!(method, crate::plan::Method::Move | crate::plan::Method::Payload) => "",
        (true, true) => "old root empty and gone, ",
        (true, false) => "old root gone, ",
        (false, true) => "old root empty, ",
        (false, false) => "old root NOT empty, ",
    };
    format!(
        "{head}; {entries} entries, {}, {milliseconds} ms, {} extra at the peak, {old}{} mounts carried; executing {}",
        Bytes(bytes),
        Bytes(extra),
        ready.mounts,
        Quoted(init)
    )
}

/// What was found, for `log=debug`.
pub fn found(facts: &Facts) -> String {
    let Facts { rootfs, initial, absolute, shared, mounts, survey, memory, others, processors, .. } = facts;
    format!(
        "facts: / is {rootfs:?}, initial {initial}, absolute {absolute}, shared {shared}; {} mounts; {} entries, of them {} \
         directories, {} hard links, {} special; {}, the largest file {}; {} of {} available; {processors} processors; {others} \
         other processes",
        mounts.len(),
        survey.entries,
        survey.directories,
        survey.hard_links,
        survey.special,
        Bytes(survey.bytes),
        Bytes(survey.largest),
        Bytes(memory.available),
        Bytes(memory.total),
    )
}

/// What was decided, for `log=debug`.
pub fn decided(plan: &Plan) -> String {
    let Plan { method, reason, tmpfs, threads, inits, .. } = plan;
    let or_default = |value: &Option<String>| value.clone().unwrap_or_else(|| String::from("default"));
    let init = inits.first().map_or(&b""[..], Vec::as_slice);
    format!(
        "plan: {} ({reason}), size {}, nr_inodes {}, {threads} threads, init {}",
        method.name(),
        or_default(&tmpfs.size),
        or_default(&tmpfs.nr_inodes),
        Quoted(init)
    )
}

/// The line that tells how far a long move has come.
pub fn so_far(progress: &Progress, of_entries: u64, of_bytes: u64) -> String {
    let (entries, bytes) = (progress.entries.load(Ordering::Relaxed), progress.bytes.load(Ordering::Relaxed));
    format!("{entries} of {of_entries} entries are there, {} of {}", Bytes(bytes), Bytes(of_bytes))
}
