//! Network interfaces and the default route, by the calls of netdevice(7).
#![allow(clippy::cast_possible_truncation)] // Small constants, whose types differ between C libraries.

use core::ffi::{c_char, c_int, c_short, c_ulong, c_ushort};
use core::ptr;

use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use rustix::io::Errno;

use super::last_error;

/// Adds a route (linux/sockios.h).
const SIOCADDRT: c_int = 0x890b;

/// An IPv4 address.
pub(crate) type Address = [u8; 4];

/// A network interface.
pub(crate) struct Interface {
    socket: OwnedFd,
    name: [c_char; libc::IFNAMSIZ],
}

/// A route, as in linux/route.h. The C library for static programs names the fields in other ways.
#[repr(C)]
struct Route {
    pad: c_ulong,
    destination: libc::sockaddr,
    gateway: libc::sockaddr,
    mask: libc::sockaddr,
    flags: c_ushort,
    pad2: c_short,
    pad3: c_ulong,
    pad4: *mut u8,
    metric: c_short,
    device: *mut c_char,
    mtu: c_ulong,
    window: c_ulong,
    timeout: c_ushort,
}

impl Interface {
    /// Names an interface. It is looked up by each call.
    pub(crate) fn named(name: &[u8]) -> Result<Interface, Errno> {
        let mut field = [0; libc::IFNAMSIZ];
        if name.len() >= field.len() {
            return Err(Errno::NODEV);
        }
        for (to, from) in field.iter_mut().zip(name) {
            *to = from.cast_signed() as c_char;
        }
        // SAFETY: the socket is new, so nobody else owns it.
        let socket = unsafe {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            if socket < 0 {
                return Err(last_error());
            }
            OwnedFd::from_raw_fd(socket)
        };
        Ok(Interface { socket, name: field })
    }

    /// Sets it up.
    pub(crate) fn up(&self) -> Result<(), Errno> {
        let mut request = self.request();
        self.call(libc::SIOCGIFFLAGS as _, &mut request)?;
        // SAFETY: the call before has filled the flags.
        unsafe { request.ifr_ifru.ifru_flags |= (libc::IFF_UP | libc::IFF_RUNNING) as c_short };
        self.call(libc::SIOCSIFFLAGS as _, &mut request)
    }

    /// Gives it an address and a netmask.
    pub(crate) fn set(&self, own: Address, mask: Address) -> Result<(), Errno> {
        let mut request = self.request();
        request.ifr_ifru.ifru_addr = socket_address(own);
        self.call(libc::SIOCSIFADDR as _, &mut request)?;
        request.ifr_ifru.ifru_netmask = socket_address(mask);
        self.call(libc::SIOCSIFNETMASK as _, &mut request)
    }

    /// Makes this gateway the default route.
    pub(crate) fn route(&self, gateway: Address) -> Result<(), Errno> {
        // SAFETY: a route of zeros is valid.
        let mut route: Route = unsafe { core::mem::zeroed() };
        route.destination = socket_address([0; 4]);
        route.mask = socket_address([0; 4]);
        route.gateway = socket_address(gateway);
        // RTF_UP and RTF_GATEWAY (linux/route.h).
        route.flags = 3;
        route.device = self.name.as_ptr().cast_mut();
        // SAFETY: a valid route, of which the kernel only reads, and a name that outlives the call.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCADDRT as _, &raw mut route) } < 0 {
            return Err(last_error());
        }
        Ok(())
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: a request of zeros is valid.
        let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
        request.ifr_name = self.name;
        request
    }

    #[allow(clippy::cast_sign_loss)] // A positive number, and unsigned to glibc.
    fn call(&self, number: c_int, request: &mut libc::ifreq) -> Result<(), Errno> {
        // SAFETY: the requests of this file read and write only this structure.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), number as _, ptr::from_mut(request)) } < 0 {
            return Err(last_error());
        }
        Ok(())
    }
}

/// An address with port 0, as sockaddr_in lays it out (ip(7)).
fn socket_address(address: Address) -> libc::sockaddr {
    // SAFETY: an address of zeros is valid.
    let mut socket: libc::sockaddr = unsafe { core::mem::zeroed() };
    socket.sa_family = libc::AF_INET as _;
    for (to, from) in socket.sa_data[2..].iter_mut().zip(address) {
        *to = from.cast_signed() as c_char;
    }
    socket
}
