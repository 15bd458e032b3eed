//! The root of the demo: programs of this machine with their libraries, and a bundle for runc.

use anyhow::{Context, Result};
use repot_harness::command::{find, read};
use std::fs::{Permissions, copy, create_dir_all, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Copies a program, and the libraries that the dynamic linker loads for it to the same paths.
fn program(root: &Path, from: &Path, to: &str) -> Result<()> {
    put(from, &root.join(to))?;
    // ldd fails on a static program.
    let libraries = read(Command::new("ldd").arg(from)).unwrap_or_default();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        put(Path::new(library), &root.join(library.trim_start_matches('/')))?;
    }
    Ok(())
}

fn put(from: &Path, to: &Path) -> Result<()> {
    create_dir_all(to.parent().unwrap_or(to))?;
    copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(set_permissions(to, Permissions::from_mode(0o755))?)
}

fn script(path: &PathBuf, text: &str) -> Result<()> {
    write(path, text)?;
    Ok(set_permissions(path, Permissions::from_mode(0o755))?)
}

/// The smallest container that runc accepts, with the namespaces that make runc use `pivot_root`.
const BUNDLE: &str = r#"{
  "ociVersion": "1.0.2",
  "process": {
    "terminal": false,
    "user": { "uid": 0, "gid": 0 },
    "args": ["/bin/busybox", "echo", "GREETING"],
    "env": ["PATH=/bin"],
    "cwd": "/",
    "noNewPrivileges": true
  },
  "root": { "path": "rootfs", "readonly": false },
  "hostname": "demo",
  "mounts": [
    { "destination": "/proc", "type": "proc", "source": "proc" },
    { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }
  ],
  "linux": {
    "namespaces": [
      { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }
    ]
  }
}
"#;
