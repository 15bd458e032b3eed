//! The real init's part: the clock first, then what it found; in a virtual machine, over the second serial port.

use crate::{Done, say, stamp, tally};
use rustix::fs::{FileType, Mode, OFlags, makedev, mknodat, open, openat, statfs};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::path::Path;

/// In the image of a virtual machine, the word for the mover.
const MACHINE: &str = "/etc/bench-machine";

/// The word, when this is a virtual machine. Without a mover of our own it is on the kernel's command line, which hands to the
/// init what it does not know.
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
        // A trace is to show no calls but the mover's.
        if std::env::var_os("BENCH").is_some() {
            return Ok(());
        }
        // A profile is to tell what follows from the mover, which is called init too.
        rustix::thread::set_name(c"arrived")?;
        say(&format!("root {:#x}", statfs("/")?.f_type))?;
        return tally::tell(Path::new("/"));
    }
    let told = over_serial_port(&end);
    // Whatever was said, the host reads it when the machine is off.
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
