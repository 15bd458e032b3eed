//! The report to the host, over `/dev/ttyS1`, without needing a `/dev`.

use repot_probe::account::Line;
use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, openat};
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

/// Writes one line and waits until it is sent.
pub(crate) fn say(line: &Line) -> Result<(), String> {
    let mut text = serde_json::to_vec(line).map_err(|error| format!("JSON: {error}"))?;
    text.push(b'\n');
    let mut port = open()?;
    port.write_all(&text).map_err(|error| format!("ttyS1: write: {error}"))?;
    tcdrain(&port).map_err(|error| format!("ttyS1: tcdrain: {error}"))
}

fn open() -> Result<File, String> {
    let nodes = detached("tmpfs")?;
    let node = makedev(4, 65);
    mknodat(&nodes, c"port", FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, node)
        .map_err(|error| format!("ttyS1: mknod: {error}"))?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let port =
        openat(&nodes, c"port", flags, Mode::empty()).map_err(|error| format!("ttyS1: open: {error}"))?;
    // By default, a terminal adds carriage returns and expands tabs.
    let mut state = tcgetattr(&port).map_err(|error| format!("ttyS1: tcgetattr: {error}"))?;
    state.make_raw();
    tcsetattr(&port, OptionalActions::Now, &state).map_err(|error| format!("ttyS1: tcsetattr: {error}"))?;
    Ok(port.into())
}
