//! The demo's root: programs of this machine with the libraries they ask for, and a bundle for runc.

use crate::command::{find, read};
use anyhow::{Context, Result};
use serde_json::json;
use std::fs::{Permissions, copy, create_dir_all, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the root's own init does, as root systems do: mount what a container engine needs, run it, say what came of it.
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

/// Makes the root in a new directory.
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
    write(root.join("bundle/config.json"), serde_json::to_vec_pretty(&bundle(greeting))?)?;
    Ok(())
}

/// A program and the libraries the dynamic linker would load for it, at the same paths.
fn program(root: &Path, from: &Path, to: &str) -> Result<()> {
    put(from, &root.join(to))?;
    // A static program is an error to ldd.
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

/// A container as small as runc takes it, with the namespaces that make it use `pivot_root`.
fn bundle(greeting: &str) -> serde_json::Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/busybox", "echo", greeting],
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
    })
}
