//! Ends the machine: all processes, the file systems, and the exit code's way out.

use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use repot::display::Quoted;
use repot::error::name_of;
use repot::facts::mountinfo;
use repot::run::{OnExit, Program};
use repot::runtime::sleep;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, RawDir, open, openat, sync};
use rustix::io::{Errno, write};
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::system::{RebootCommand, reboot};

use crate::log::{error, info, is_machine};
use crate::{child, prepare, supervise, sys, terminal};

/// Whether somebody has asked for the end, by SIGTERM, SIGINT or SIGPWR.
static ASKED: AtomicBool = AtomicBool::new(false);

pub(crate) fn ask() {
    ASKED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// The I/O port of QEMU's `isa-debug-exit` device, unless it is given another.
const DEBUG_EXIT: u16 = 0x501;

/// Ends everything, with the exit code of the program.
pub(crate) fn end(program: &Program, code: i32) -> ! {
    supervise::end_all(program);
    report(program, code);
    if program.onexit == OnExit::Shell {
        shell(program);
    }
    terminal::drain();
    sync();
    unmount_all();
    if let Some(port) = port(&program.exit)
        && let Err(errno) = sys::write_port(port, code.to_le_bytes()[0])
    {
        explain(program, errno);
    }
    // Outside the initial PID namespace this process ends a container, and its exit code is the result.
    if !is_machine() {
        sys::exit(code);
    }
    let (command, what) = match program.onexit {
        OnExit::Panic => sys::exit(code),
        OnExit::Reboot => (RebootCommand::Restart, "rebooting"),
        OnExit::Poweroff | OnExit::Shell | OnExit::Restart => (RebootCommand::PowerOff, "powering off"),
    };
    info(format_args!("run: exit code {code}; {what}"));
    if let Err(errno) = reboot(command) {
        let (name, meaning) = name_of(errno);
        error(format_args!("run: reboot: {name} ({meaning})"));
    }
    loop {
        sleep(3600);
    }
}

/// Runs a shell on the console until it ends.
fn shell(program: &Program) {
    let mut shell = Program::default();
    shell.args.push(c"/bin/sh".into());
    shell.env.clone_from(&program.env);
    match child::start(&shell) {
        Ok(pid) => {
            supervise::until_ended(&shell, pid);
            supervise::end_all(&shell);
        }
        Err(failed) => error(format_args!("run: {failed}; no shell (onexit=shell)")),
    }
}

/// Writes the exit code, in decimal and with a line feed, where `exit` says.
pub(crate) fn report(program: &Program, code: i32) {
    if program.exit.is_empty() || port(&program.exit).is_some() {
        return;
    }
    let text = format!("{code}\n");
    let written = target(&program.exit).and_then(|target| write(&target, text.as_bytes()));
    if let Err(errno) = written {
        explain(program, errno);
    }
}

fn explain(program: &Program, errno: Errno) {
    let (name, meaning) = name_of(errno);
    error(format_args!("run: exit code not written to {}: {name} ({meaning})", Quoted(&program.exit)));
}

/// Opens the target of the exit code: `virtio:NAME` is a port of a virtio console, `vsock:PORT` a port of the
/// host, anything else a path.
fn target(exit: &[u8]) -> Result<OwnedFd, Errno> {
    if let Some(name) = exit.strip_prefix(b"virtio:") {
        return virtio_port(name);
    }
    if let Some(port) = exit.strip_prefix(b"vsock:") {
        return sys::vsock(number(port).and_then(|port| u32::try_from(port).ok()).ok_or(Errno::INVAL)?);
    }
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    // A device that is missing must not become a file.
    let flags = if exit.starts_with(b"/dev/") { flags } else { flags | OFlags::CREATE | OFlags::TRUNC };
    openat(CWD, exit, flags, Mode::from_raw_mode(0o644))
}

/// The virtio port of this name. udev would link it below /dev/virtio-ports; here sysfs tells.
fn virtio_port(name: &[u8]) -> Result<OwnedFd, Errno> {
    let class = b"/sys/class/virtio-ports";
    let dir = open(&class[..], OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = Vec::with_capacity(1024);
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let port = entry.file_name().to_bytes();
        let path = [&class[..], port, b"name"].join(&b'/');
        if prepare::read(&path).is_ok_and(|text| text.trim_ascii() == name) {
            let device = [&b"/dev"[..], port].join(&b'/');
            return openat(CWD, device, OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
        }
    }
    Err(Errno::NODEV)
}

/// The I/O port of `port:NUMBER` or `debug-exit`. It gets the exit code as a byte, at the very end, since the
/// machine may be gone with it.
fn port(exit: &[u8]) -> Option<u16> {
    if exit == b"debug-exit" {
        return Some(DEBUG_EXIT);
    }
    number(exit.strip_prefix(b"port:")?)?.try_into().ok()
}

fn number(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?;
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Unmounts what can be unmounted, the last mount first, and makes a root on a disk read-only. The processes
/// are gone already; what is busy stays, and has been synced.
fn unmount_all() {
    let text = prepare::read(b"/proc/self/mountinfo").unwrap_or_default();
    for mount in mountinfo::parse(&text).iter().rev() {
        let is_kernels =
            matches!(&mount.fstype[..], b"proc" | b"sysfs" | b"devtmpfs" | b"cgroup2" | b"tmpfs");
        if mount.point != b"/" && !is_kernels {
            let _ = unmount(&mount.point[..], UnmountFlags::NOFOLLOW);
        }
    }
    if !prepare::root_is_in_memory() {
        let _ = mount_remount(c"/", MountFlags::RDONLY, c"");
    }
}
