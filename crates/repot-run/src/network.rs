//! The network as far as a program can't do without: the loopback interface, the address that `ip=` of the
//! kernel command line gives, and files in `/etc` that are missing. Container engines leave these empty in
//! the images that they export.

use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;

use repot::display::Quoted;
use repot::error::name_of;
use repot::options::cmdline;
use rustix::fs::{CWD, Mode, OFlags, access, open, openat};
use rustix::io::{Errno, write};
use rustix::system::uname;

use crate::log::warn;
use crate::sys::interface::{Address, Interface};
use crate::{drivers, prepare};

/// What the kernel knows about name servers. Exists if the kernel follows `ip=` itself.
const PNP: &[u8] = b"/proc/net/pnp";

/// Sets the interfaces up and writes the files that are missing.
pub(crate) fn prepare() {
    match Interface::named(b"lo").and_then(|interface| interface.up()) {
        // A kernel without a network.
        Ok(()) | Err(Errno::NODEV | Errno::AFNOSUPPORT | Errno::NOSYS) => {}
        Err(errno) => failed("ioctl SIOCSIFFLAGS \"lo\"", errno),
    }
    let pnp = prepare::read(PNP);
    let mut resolvers = resolvers(pnp.as_deref().unwrap_or_default());
    if pnp.is_err() {
        // Distributions build their kernels without CONFIG_IP_PNP.
        let line = prepare::read(b"/proc/cmdline").unwrap_or_default();
        let last = cmdline::parse(&line).into_iter().rfind(|param| param.key == b"ip");
        if let Some(value) = last.and_then(|param| param.value) {
            resolvers = configure(value);
        }
    }
    let kernel = uname();
    let name = kernel.nodename().to_bytes().escape_ascii();
    supply("/etc/hosts", || {
        let own = if kernel.nodename() == c"localhost" { "" } else { &*format!("127.0.1.1\t{name}\n") };
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}").into_bytes()
    });
    supply("/etc/resolv.conf", || resolvers);
}

/// Follows `ip=` in the kernel's place: `OWN::GATEWAY:NETMASK::DEVICE::DNS:DNS`, where all but the first may
/// be missing. Returns lines for resolv.conf.
fn configure(value: &[u8]) -> Vec<u8> {
    if matches!(value, b"off" | b"none") {
        return Vec::new();
    }
    let mut fields = [&b""[..]; 9];
    for (field, text) in fields.iter_mut().zip(value.split(|byte| *byte == b':')) {
        *field = text;
    }
    let [own, _, gateway, mask, _, device, _, servers @ ..] = fields;
    let Some(own) = address(own) else {
        let value = Quoted(value);
        warn(format_args!(
            "run: ip={value} needs a kernel with CONFIG_IP_PNP; ip=OWN::GATEWAY:NETMASK does not"
        ));
        return Vec::new();
    };
    let Some(device) = (if device.is_empty() { first_device() } else { CString::new(device).ok() }) else {
        warn(format_args!(
            "run: ip= is set, but the kernel has found no network card: its driver is missing"
        ));
        return Vec::new();
    };
    let mask = address(mask).unwrap_or([255, 255, 255, 0]);
    let set = Interface::named(device.to_bytes()).and_then(|interface| {
        interface.set(own, mask)?;
        interface.up()?;
        address(gateway).map_or(Ok(()), |gateway| interface.route(gateway))
    });
    if let Err(errno) = set {
        failed(&format!("ip= for {}", Quoted(device.to_bytes())), errno);
    }
    let known = servers.into_iter().filter(|server| address(server).is_some());
    known.flat_map(|server| [b"nameserver ", server, b"\n"].concat()).collect()
}

/// The first network card by name: an interface with a device behind it.
fn first_device() -> Option<CString> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let class = open(c"/sys/class/net", flags, Mode::empty()).ok()?;
    let is_card = |name: &CString| {
        let device = [b"/sys/class/net/", name.to_bytes(), b"/device"].concat();
        access(device, rustix::fs::Access::EXISTS).is_ok()
    };
    drivers::names(&class).into_iter().filter(is_card).min()
}

/// An IPv4 address, but not 0.0.0.0, which stands for none.
fn address(text: &[u8]) -> Option<Address> {
    let mut address = Address::default();
    let mut parts = text.split(|byte| *byte == b'.');
    for byte in &mut address {
        *byte = core::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    }
    (parts.next().is_none() && address != [0; 4]).then_some(address)
}

fn failed(what: &str, errno: Errno) {
    let (name, meaning) = name_of(errno);
    warn(format_args!("run: {what}: {name} ({meaning})"));
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
