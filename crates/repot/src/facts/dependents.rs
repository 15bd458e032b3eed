//! Finds what depends on the old root besides its own tree: mounts and devices that keep their data in a file
//! or a directory of it. Bind mounts of the root itself are not among them: see [`crate::plan`].
//!
//! A mount is independent only if that is certain: its file system keeps nothing elsewhere, or it is on a
//! block device. Loop devices are looked at by themselves, see [`super::loops`], so whatever is stacked on
//! one is covered.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::loops::Loop;
use super::mountinfo::{Device, Mount};
use crate::display::Quoted;

/// Types without a block device that keep their data in the kernel, on the network, or on raw flash. `btrfs`,
/// `zfs` and `bcachefs` are on block devices, but have device numbers of their own.
const INDEPENDENT: &[&[u8]] = &[
    b"9p",
    b"afs",
    b"autofs",
    b"bcachefs",
    b"binder",
    b"binfmt_misc",
    b"bpf",
    b"btrfs",
    b"ceph",
    b"cgroup",
    b"cgroup2",
    b"cifs",
    b"configfs",
    b"cpuset",
    b"debugfs",
    b"devpts",
    b"devtmpfs",
    b"efivarfs",
    b"functionfs",
    b"fusectl",
    b"hugetlbfs",
    b"jffs2",
    b"mqueue",
    b"nfs",
    b"nfs4",
    b"nfsd",
    b"nsfs",
    b"proc",
    b"pstore",
    b"ramfs",
    b"resctrl",
    b"rpc_pipefs",
    b"securityfs",
    b"selinuxfs",
    b"smackfs",
    b"smb3",
    b"sysfs",
    b"tmpfs",
    b"tracefs",
    b"ubifs",
    b"virtiofs",
    b"xenfs",
    b"zfs",
];

/// Each mount and each loop device that depends on the file system of `root`, in a clause that says how.
pub(super) fn dependents(root: &Mount, device: Device, mounts: &[Mount], loops: &[Loop]) -> Vec<String> {
    let mut found = Vec::new();
    if root.root != b"/" {
        // Files of it may have hard links outside, and other processes see it from there.
        found.push(format!("it is only the directory {} of its file system", Quoted(&root.root)));
    }
    let others = mounts.iter().filter(|mount| mount.id != root.id);
    found.extend(others.filter_map(|mount| of_mount(mount, device)));
    found.extend(loops.iter().filter_map(|device_of| of_loop(device_of, device)));
    found
}

fn of_mount(mount: &Mount, root: Device) -> Option<String> {
    let point = Quoted(&mount.point);
    if mount.fstype == b"nsfs" && mount.root.starts_with(b"mnt:") {
        return Some(format!("{point} keeps a mount namespace, which may show it"));
    }
    if mount.device == root {
        return None;
    }
    if mount.device.major != 0 || INDEPENDENT.contains(&mount.fstype.as_slice()) {
        return None;
    }
    Some(format!("{point} ({}) may keep its data in it", mount.fstype.escape_ascii()))
}

fn of_loop(device: &Loop, root: Device) -> Option<String> {
    match device.backing {
        Some(backing) if backing != root => None,
        Some(_) => Some(format!("{} has its backing file in it", device.name)),
        None => Some(format!("{} may have its backing file in it", device.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::mountinfo::parse;

    const ROOT: &str = "1 1 0:2 / / rw - rootfs rootfs rw\n";
    const RAM: Device = Device { major: 0, minor: 2 };

    fn found(mounts: &str, loops: &[Loop]) -> Vec<String> {
        let mounts = parse(format!("{ROOT}{mounts}").as_bytes());
        dependents(&mounts[0], RAM, &mounts, loops)
    }

    #[test]
    fn what_keeps_nothing_in_the_root_is_independent() {
        let mounts = "20 1 0:20 / /proc rw - proc p rw\n\
            21 1 0:6 / /dev rw - devtmpfs d rw\n\
            22 1 254:1 / /data rw - ext4 /dev/vda1 rw\n\
            23 1 0:30 / /srv rw - nfs4 10.0.0.1:/x rw\n\
            24 1 0:31 /sub /bound rw - tmpfs t rw\n";
        assert_eq!(found(mounts, &[]), [""; 0]);
    }

    #[test]
    fn a_part_of_a_file_system_depends_on_the_rest() {
        let mounts = parse(b"20 1 0:2 /c1 / rw - rootfs rootfs rw\n");
        assert_eq!(
            dependents(&mounts[0], RAM, &mounts, &[]),
            ["it is only the directory \"/c1\" of its file system"]
        );
    }

    #[test]
    fn a_kept_mount_namespace_may_show_it() {
        let mounts = "20 1 0:4 mnt:[4026532300] /run/ns/a rw - nsfs nsfs rw\n\
            21 1 0:4 net:[4026532301] /run/netns/b rw - nsfs nsfs rw\n";
        assert_eq!(found(mounts, &[]), ["\"/run/ns/a\" keeps a mount namespace, which may show it"]);
    }

    #[test]
    fn what_is_stacked_or_unknown_may_depend_on_it() {
        let mounts = "20 1 0:40 / /merged rw - overlay ov rw,lowerdir=/a,upperdir=/b,workdir=/c\n\
            21 1 0:41 / /f rw - fuse.sshfs x rw\n\
            22 1 0:42 / /e ro - erofs /image ro\n";
        let found = found(mounts, &[]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0], "\"/merged\" (overlay) may keep its data in it");
    }

    #[test]
    fn loop_devices_depend_on_their_backing_file() {
        let device = |backing| Loop { name: "loop0".into(), backing };
        let elsewhere = Device { major: 254, minor: 1 };
        assert_eq!(found("", &[device(Some(elsewhere))]), [""; 0]);
        assert_eq!(found("", &[device(Some(RAM))]), ["loop0 has its backing file in it"]);
        assert_eq!(found("", &[device(None)]), ["loop0 may have its backing file in it"]);
    }
}
