//! Reads the configuration: `/etc/repot.conf`, the kernel command line, and `panic=`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::error::{Call, Fault, Step};
use crate::options::{Options, cmdline};
use crate::site::{Site, read_whole};

/// The maximum size of the configuration file, in bytes.
const CONFIG_LIMIT: usize = 64 * 1024;

/// Reads the configuration and `panic=`. Never fails: a source that cannot be read becomes a warning.
pub fn options(site: &Site) -> Options {
    options_from(site.root_file("etc/repot.conf", CONFIG_LIMIT), &|name| site.proc_file(name))
}

/// As [`options`], if no site can be opened: on kernels before 5.2, and without the right to mount.
pub(crate) fn options_in_place() -> Options {
    let read = |path: &str| {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(CWD, path, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            opened => {
                let file = opened.on("openat", path.as_bytes())?;
                read_whole(&file, CONFIG_LIMIT).on("read", path.as_bytes()).map(Some)
            }
        }
    };
    let proc = |name: &str| read(&format!("/proc/{name}")).map(Option::unwrap_or_default);
    options_from(read("/etc/repot.conf"), &proc)
}

fn options_from(
    file: Result<Option<Vec<u8>>, Fault>,
    proc: &dyn Fn(&str) -> Result<Vec<u8>, Fault>,
) -> Options {
    let (line, panic) = (proc("cmdline"), proc("sys/kernel/panic"));
    let mut warnings = Vec::new();
    let mut warn = |fault: Fault| {
        warnings.push(format!("{}; going on without it", fault.at(Step::Facts)));
        None
    };
    let file = file.unwrap_or_else(&mut warn);
    let line = line.map(Some).unwrap_or_else(&mut warn).unwrap_or_default();
    let unread = !warnings.is_empty();
    let mut line = cmdline::parse(&line);
    // A bootconfig is part of the initramfs, and the kernel puts its keys onto the command line.
    let overlay = |param: &cmdline::Param<'_>| cmdline::same_key(param.key, b"repot.payload.overlay");
    if line.iter().any(overlay) && cmdline::in_bootconfig(proc("bootconfig"), b"repot.payload.overlay") {
        line.retain(|param| !overlay(param));
        warnings
            .push(String::from("payload.overlay ignored in a bootconfig: set it on the command line itself"));
    }
    let mut options = Options::read(file.as_deref(), &line);
    warnings.append(&mut options.warnings);
    options.unread = unread;
    options.warnings = warnings;
    let number = |text: &[u8]| core::str::from_utf8(text.trim_ascii()).ok()?.parse().ok();
    options.panic = panic.ok().and_then(|text| number(&text)).unwrap_or(0);
    options
}
