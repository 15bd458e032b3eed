//! The root of the demo: programs of this machine with their libraries, and a bundle for runc.

use anyhow::Result;
use repot_harness::command::find;
use repot_harness::container::{BUNDLE, program};
use std::fs::{Permissions, create_dir_all, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The root's own init: it mounts what a container engine needs, runs the container, and reports the result.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
export PATH=/bin:/sbin
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t cgroup2 cgroup2 /sys/fs/cgroup
$b mount -t devtmpfs devtmpfs /dev
$b mount -t tmpfs tmpfs /run
$b stty -F /dev/ttyS1 raw
/bin/runc --root /run/runc run --bundle /bundle demo >/run/out 2>&1 </dev/null
code=$?
{
  echo "kernel: $($b uname -r)"
  echo "root: $($b grep ' / / ' /proc/self/mountinfo | $b sed 's/.* - //')"
  $b dmesg | $b grep -F 'repot: ' | $b sed 's/^/log: /'
  $b sed 's/^/runc: /' /run/out
  echo "exit: $code"
} >/dev/ttyS1
$b poweroff -f
"#;

/// Creates the root in a new directory.
pub(super) fn make(root: &Path, greeting: &str) -> Result<()> {
    for folder in ["bin", "dev", "etc", "mnt", "proc", "run", "sbin", "sys", "tmp", "bundle/rootfs/bin"] {
        create_dir_all(root.join(folder))?;
    }
    let busybox = find("busybox")?;
    program(root, &busybox, "bin/busybox")?;
    program(root, &find("runc")?, "bin/runc")?;
    symlink("busybox", root.join("bin/sh"))?;
    script(&root.join("sbin/init"), INIT)?;
    let inside = root.join("bundle/rootfs");
    program(&inside, &busybox, "bin/busybox")?;
    write(root.join("bundle/config.json"), BUNDLE.replace("GREETING", greeting))?;
    Ok(())
}

fn script(path: &PathBuf, text: &str) -> Result<()> {
    write(path, text)?;
    Ok(set_permissions(path, Permissions::from_mode(0o755))?)
}
