//! The mounts of this mount namespace, from /proc/self/mountinfo (proc_pid_mountinfo(5)).

use alloc::vec::Vec;

/// The number of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// 0 for file systems without a block device.
    pub major: u32,
    /// Distinguishes devices with the same major number.
    pub minor: u32,
}

impl Device {
    pub(crate) fn numbers(self) -> (u32, u32) {
        (self.major, self.minor)
    }
}

/// One mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The mount ID.
    pub id: u64,
    /// The ID of the parent mount. A mount without a parent is its own.
    pub parent: u64,
    /// The device number of the file system (`st_dev`).
    pub device: Device,
    /// The directory or file of the file system that is mounted. `/`, except for bind mounts.
    pub root: Vec<u8>,
    /// The mount point, relative to the root of this process.
    pub point: Vec<u8>,
    /// Its options as a mount, such as `rw,nosuid,relatime`.
    pub options: Vec<u8>,
    /// The peer group that it shares mounts with; 0 if it is not shared.
    pub group: u64,
    /// The peer group that it receives mounts from; 0 if it is no slave.
    pub master: u64,
    /// Whether it cannot be bind-mounted.
    pub unbindable: bool,
    /// The type of the file system.
    pub fstype: Vec<u8>,
}

/// Parses a mountinfo file. Malformed lines are skipped.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = device(fields.next()?)?;
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let options = fields.next()?.to_vec();
    let (mut group, mut master, mut unbindable) = (0, 0, false);
    loop {
        let field = fields.next()?;
        if field == b"-" {
            break;
        }
        let id = |name: &[u8]| field.strip_prefix(name).and_then(number);
        group = id(b"shared:").unwrap_or(group);
        master = id(b"master:").unwrap_or(master);
        unbindable |= field == b"unbindable";
    }
    let fstype = fields.next()?.to_vec();
    Some(Mount { id, parent, device, root, point, options, group, master, unbindable, fstype })
}

/// Parses `MAJOR:MINOR`.
pub(super) fn device(field: &[u8]) -> Option<Device> {
    let (major, minor) = core::str::from_utf8(field).ok()?.split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

fn number(field: &[u8]) -> Option<u64> {
    core::str::from_utf8(field).ok()?.parse().ok()
}

/// Replaces octal escapes: the kernel escapes space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut remaining = field;
    while let [first, tail @ ..] = remaining {
        match remaining {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                remaining = tail;
            }
            _ => {
                out.push(*first);
                remaining = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_root_is_its_own_parent() {
        let mounts = parse(b"1 1 0:2 / / rw - rootfs rootfs rw\n22 1 0:20 / /proc\\040x rw shared:3 - proc none rw\nnonsense\n");
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].id, mounts[0].parent, mounts[0].fstype.as_slice()), (1, 1, &b"rootfs"[..]));
        assert_eq!((mounts[1].point.as_slice(), mounts[1].group), (&b"/proc x"[..], 3));
    }

    #[test]
    fn propagation_and_options() {
        let mounts = parse(
            b"30 1 0:2 /a /b ro,nosuid shared:7 master:4 propagate_from:2 - rootfs rootfs rw\n\
              31 1 0:2 /a /c rw,relatime unbindable - rootfs rootfs rw\n",
        );
        let what = |at: usize| {
            let mount: &Mount = &mounts[at];
            (mount.options.as_slice(), mount.group, mount.master, mount.unbindable)
        };
        assert_eq!(what(0), (&b"ro,nosuid"[..], 7, 4, false));
        assert_eq!(what(1), (&b"rw,relatime"[..], 0, 0, true));
    }
}
