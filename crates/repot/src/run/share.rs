//! A directory of the host that the runner mounts.

use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;

use crate::error::{Call, Fault};
use crate::essential::make;
use alloc::ffi::CString;
use rustix::mount::{MountFlags, mount};

/// How the directory gets into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// 9p on virtio (Documentation/filesystems/9p.rst).
    NineP,
    /// virtio-fs (Documentation/filesystems/virtiofs.rst), since 5.4.
    Virtiofs,
}

impl Transport {
    const NAMES: [(&'static str, Transport); 2] =
        [("9p", Transport::NineP), ("virtiofs", Transport::Virtiofs)];

    /// The type of the file system, as mount(2) takes it.
    #[must_use]
    pub fn fstype(self) -> &'static CStr {
        match self {
            Transport::NineP => c"9p",
            Transport::Virtiofs => c"virtiofs",
        }
    }

    /// The data of mount(2). Without `msize`, kernels before 5.15 move 8 KiB at a time; 512,000 bytes are the
    /// most that virtio takes.
    #[must_use]
    pub fn options(self) -> &'static CStr {
        match self {
            Transport::NineP => c"trans=virtio,version=9p2000.L,msize=512000",
            Transport::Virtiofs => c"",
        }
    }

    /// The drivers, in the order in which they are loaded.
    #[must_use]
    pub fn drivers(self) -> &'static [&'static str] {
        match self {
            Transport::NineP => &["virtio_pci", "9pnet_virtio", "9p"],
            Transport::Virtiofs => &["virtio_pci", "virtiofs"],
        }
    }
}

/// A directory of the host, which the runner mounts before the program starts. As text:
/// `9p:TAG:PATH` or `virtiofs:TAG:PATH`, and `9p,ro:TAG:PATH` where nothing may be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// How it gets into the guest.
    pub transport: Transport,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// The name that the host gave it.
    pub tag: CString,
    /// The absolute path of the mount point, which is made if it is missing.
    pub path: CString,
}

impl Share {
    /// Reads the text; `None` if it is wrong.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Share> {
        let mut parts = text.splitn(3, |byte| *byte == b':');
        let (kind, tag, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (kind, read_only) = match kind.strip_suffix(b",ro") {
            Some(kind) => (kind, true),
            None => (kind, false),
        };
        let (_, transport) = Transport::NAMES.into_iter().find(|(name, _)| name.as_bytes() == kind)?;
        let is_below_root = path.len() > 1 && path.starts_with(b"/");
        if tag.is_empty() || !is_below_root {
            return None;
        }
        Some(Share { transport, read_only, tag: CString::new(tag).ok()?, path: CString::new(path).ok()? })
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let name = Transport::NAMES.iter().find(|(_, transport)| *transport == self.transport);
        let mut text =
            format!("{}{}:", name.map_or("", |(name, _)| name), if self.read_only { ",ro" } else { "" });
        text.push_str(&self.tag.to_string_lossy());
        let mut text = text.into_bytes();
        text.push(b':');
        text.extend_from_slice(self.path.to_bytes());
        text
    }

    /// Mounts it, without device nodes and set-user-ID programs of the host, and makes the mount point and
    /// its parents where they are missing.
    ///
    /// # Errors
    /// The call that failed, with the path. Without the driver: `ENODEV`. Without the tag: `ENOENT` (9p) or
    /// `EINVAL` (virtio-fs).
    pub fn mount(&self) -> Result<(), Fault> {
        make(&self.path)?;
        let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
        if self.read_only {
            flags |= MountFlags::RDONLY;
        }
        mount(&*self.tag, &*self.path, self.transport.fstype(), flags, self.transport.options())
            .on("mount", self.path.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["9p:share:/mnt", "virtiofs,ro:a b:/srv/x:y"] {
            assert_eq!(Share::parse(text.as_bytes()).unwrap().text(), text.as_bytes());
        }
        let share = Share::parse(b"virtiofs,ro:a b:/srv/x:y").unwrap();
        assert!(share.read_only);
        assert_eq!((share.transport, &*share.tag, &*share.path), (Transport::Virtiofs, c"a b", c"/srv/x:y"));
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for text in [
            "",
            "9p",
            "9p:share",
            "9p:share:",
            "9p:share:mnt",
            "9p:share:/",
            "9p::/mnt",
            "nfs:a:/mnt",
            "9p,rw:a:/b",
        ] {
            assert_eq!(Share::parse(text.as_bytes()), None, "{text}");
        }
    }
}
