//! The report to the host, over the second serial port or the console, without needing a `/dev`.

use repot_probe::REPORT;
use repot_probe::account::Line;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps, makedev, mknodat, openat, stat,
    utimensat,
};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

/// A new detached file system.
pub(crate) fn detached(kind: &str) -> Result<OwnedFd, String> {
    let made = || {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    made().map_err(|error| format!("a detached {kind}: {error}"))
}

/// Only PCs and the machine of loongarch64 have a second serial port. Elsewhere the report goes over the
/// console.
const SECOND_PORT: bool = cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "loongarch64"));

/// Writes one line and waits until it is sent.
pub(crate) fn say(line: &Line) -> Result<(), String> {
    let mut text = serde_json::to_vec(line).map_err(|error| format!("JSON: {error}"))?;
    text.push(b'\n');
    if !SECOND_PORT {
        // A message of the kernel in the middle would damage the line. The init under test has nothing to say
        // to the console while the probe runs.
        repot_probe::sys::quiet_console(true).map_err(|error| format!("syslog: {error}"))?;
        text.splice(0..0, format!("\n{REPORT}").into_bytes());
    }
    let times = stat("/dev/console").ok();
    let mut port = open()?;
    let before = tcgetattr(&port).map_err(|error| format!("the port: tcgetattr: {error}"))?;
    // By default, a terminal adds carriage returns and expands tabs.
    let mut raw = before.clone();
    raw.make_raw();
    let set = |port: &File, state| {
        tcsetattr(port, OptionalActions::Drain, state)
            .map_err(|error| format!("the port: tcsetattr: {error}"))
    };
    set(&port, &raw)?;
    port.write_all(&text).map_err(|error| format!("the port: write: {error}"))?;
    tcdrain(&port).map_err(|error| format!("the port: tcdrain: {error}"))?;
    set(&port, &before)?;
    if !SECOND_PORT {
        if let Some(times) = times {
            // The kernel sets the time of every node of the console that is open (tty_update_time).
            restore(&times).map_err(|error| format!("the times of /dev/console: {error}"))?;
        }
        repot_probe::sys::quiet_console(false).map_err(|error| format!("syslog: {error}"))?;
    }
    Ok(())
}

fn restore(times: &Stat) -> rustix::io::Result<()> {
    let time = |tv_sec, nanoseconds| Timespec { tv_sec, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(times.st_atime as _, times.st_atime_nsec as _),
        last_modification: time(times.st_mtime as _, times.st_mtime_nsec as _),
    };
    utimensat(CWD, "/dev/console", &times, AtFlags::empty())
}

fn open() -> Result<File, String> {
    let nodes = detached("tmpfs")?;
    let node = if SECOND_PORT { makedev(4, 65) } else { makedev(5, 1) };
    mknodat(&nodes, c"port", FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, node)
        .map_err(|error| format!("the port: mknod: {error}"))?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let port = openat(&nodes, c"port", flags, Mode::empty());
    port.map(File::from).map_err(|error| format!("the port: open: {error}"))
}
