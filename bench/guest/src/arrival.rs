//! The stand-in for the real init: it reads the clock first, then the tree. In a virtual machine it reports
//! over the second serial port.

use crate::{Done, say, stamp, tally};
use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, open, openat, statfs};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::path::Path;

/// In the image of a virtual machine: which mover runs.
const MACHINE: &str = "/etc/bench-machine";

/// The mover, if this is a virtual machine. Without a mover, the word is on the kernel command line, and the
/// kernel passes unknown words to the init.
pub(crate) fn machine() -> Option<&'static str> {
    if std::env::args().any(|word| word == "bench-machine") {
        return Some("");
    }
    let text = std::fs::read_to_string(MACHINE).ok()?;
    Some(if text == "classic" { "classic" } else { "" })
}

pub(crate) fn arrive() -> Done {
    let end = stamp();
    if machine().is_none() {
        say(&format!("end {end}"))?;
        // A trace must show only the mover's calls.
        if std::env::var_os("BENCH").is_some() {
            return Ok(());
        }
        // The mover is called init too, and a profile must tell them apart.
        rustix::thread::set_name(c"arrived")?;
        say(&format!("root {:#x}", statfs("/")?.f_type))?;
        return tally::tell(Path::new("/"));
    }
    let told = over_serial_port(&end);
    // If the report fails, the host notices that it is missing.
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff)?;
    told
}

fn over_serial_port(end: &str) -> Done {
    let memory = rustix::system::sysinfo();
    let free = (memory.freeram * u64::from(memory.mem_unit)) >> 20;
    let tally = tally::of(Path::new("/"))?;
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let nodes = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(&nodes, c"port", FileType::CharacterDevice, mode, makedev(4, 65))?;
    let port = openat(&nodes, c"port", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let kind = rustix::fs::fstatfs(&root)?.f_type;
    rustix::io::write(
        &port,
        format!("bench end {end}\nbench root {kind:#x}\nbench free {free}\nbench tally {tally}\n").as_bytes(),
    )?;
    Ok(rustix::termios::tcdrain(&port)?)
}

/// Reports when this program began, in nanoseconds since the kernel's start. As PID 1 it also powers off.
pub(crate) fn first() -> Done {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    say(&format!("first {}", now.tv_sec * 1_000_000_000 + now.tv_nsec))?;
    if std::process::id() == 1 {
        rustix::termios::tcdrain(rustix::stdio::stdout())?;
        rustix::system::reboot(rustix::system::RebootCommand::PowerOff)?;
    }
    Ok(())
}
