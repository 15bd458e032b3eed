//! The log: the kernel log, which exists before any device node does.

use core::fmt;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, openat};
use rustix::io::{Errno, fcntl_dupfd_cloexec, write};

use crate::options::Verbosity;
use crate::site::detached;
use crate::sys;

/// The level of a line, with the numbers of the kernel log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The machine may not come up.
    Error = 3,
    /// Something was skipped.
    Warning = 4,
    /// What happened.
    Info = 6,
    /// Each step.
    Debug = 7,
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    kernel: Option<OwnedFd>,
    /// The lines to write.
    verbosity: Verbosity,
}

impl Log {
    /// Opens the kernel log if `machine` is set; otherwise lines go to standard error. It must not be set in
    /// a container: the kernel log belongs to the host.
    pub fn open(machine: bool) -> Log {
        let kernel = if machine { kernel_log().ok() } else { None };
        Log { kernel, verbosity: Verbosity::Info }
    }

    /// Sets the verbosity.
    #[must_use]
    pub fn with(self, verbosity: Verbosity) -> Log {
        Log { verbosity, ..self }
    }

    /// Writes one line.
    pub fn line(&self, level: Level, text: fmt::Arguments<'_>) {
        let wanted = match level {
            Level::Error | Level::Warning => Verbosity::Quiet,
            Level::Info => Verbosity::Info,
            Level::Debug => Verbosity::Debug,
        };
        if wanted > self.verbosity {
            return;
        }
        let (to, level) = match &self.kernel {
            Some(kernel) => (kernel.as_fd(), Some(level)),
            None => (sys::stream(2), None),
        };
        let mut line = Line { to, level, bytes: [0; RECORD], length: 0 };
        line.begin();
        // Fails only if a `Display` of the text fails.
        let _ = fmt::write(&mut line, text);
        line.put(b"\n");
    }
}

/// The maximum size of a record, in bytes. The kernel takes less than 1024 at a time (`PRINTKRB_RECORD_MAX`);
/// a longer line becomes several records.
const RECORD: usize = 960;

/// A line that is being written. Allocates nothing, because the line may report a lack of memory.
struct Line<'a> {
    to: BorrowedFd<'a>,
    /// The level of a record; `None` for a stream, which takes a line in parts.
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
pub fn print(text: &str) {
    put(sys::stream(1), text.as_bytes());
}

fn put(to: BorrowedFd<'_>, bytes: &[u8]) {
    while write(to, bytes) == Err(Errno::INTR) {}
}

/// Opens /dev/kmsg without /dev, through a device node in a detached tmpfs.
fn kernel_log() -> Result<OwnedFd, Errno> {
    let place = detached("tmpfs").map_err(|fault| fault.errno)?;
    mknodat(&place, c"kmsg", FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(1, 11))?;
    let log = openat(&place, c"kmsg", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // The numbers below are for the console, also if they are closed.
    fcntl_dupfd_cloexec(log, 3)
}
