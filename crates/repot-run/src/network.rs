//! The network as far as a program can't do without: the loopback interface, and files in `/etc` that are
//! missing. Container engines leave these empty in the images that they export.

use alloc::format;
use alloc::vec::Vec;

use repot::error::name_of;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, write};
use rustix::system::uname;

use crate::log::warn;
use crate::{prepare, sys};

/// Sets the loopback interface up and writes the files that are missing.
pub(crate) fn prepare() {
    match sys::loopback_up() {
        // A kernel without a network.
        Ok(()) | Err(Errno::NODEV | Errno::AFNOSUPPORT | Errno::NOSYS) => {}
        Err(errno) => {
            let (name, meaning) = name_of(errno);
            warn(format_args!("run: ioctl SIOCSIFFLAGS \"lo\": {name} ({meaning})"));
        }
    }
    let kernel = uname();
    let name = kernel.nodename().to_bytes().escape_ascii();
    supply("/etc/hosts", || {
        let own = if kernel.nodename() == c"localhost" { "" } else { &*format!("127.0.1.1\t{name}\n") };
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}").into_bytes()
    });
    supply("/etc/resolv.conf", || resolvers(&prepare::read(b"/proc/net/pnp").unwrap_or_default()));
}

/// The lines of /proc/net/pnp that resolv.conf(5) has too. The kernel fills it if `ip=` is on its command
/// line (net/ipv4/ipconfig.c).
fn resolvers(pnp: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for line in pnp.split_inclusive(|byte| *byte == b'\n') {
        let wanted = line.starts_with(b"domain ") || line.starts_with(b"nameserver ");
        // The kernel writes a name server that it does not know as 0.0.0.0.
        if wanted && !line.starts_with(b"nameserver 0.0.0.0") {
            text.extend_from_slice(line);
        }
    }
    text
}

/// Writes a file that is missing or empty. A file with contents belongs to the image.
fn supply(path: &str, contents: impl FnOnce() -> Vec<u8>) {
    if prepare::read(path.as_bytes()).is_ok_and(|text| !text.is_empty()) {
        return;
    }
    let text = contents();
    if text.is_empty() {
        return;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOCTTY | OFlags::CLOEXEC;
    // A read-only root or an image without /etc: the program has to do without, as it does in a container.
    let file = openat(CWD, path, flags, Mode::from_raw_mode(0o644));
    if let Ok(file) = file {
        let _ = write(&file, &text);
    }
}
