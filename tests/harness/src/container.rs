//! What a root needs to run one container: programs of this machine with their libraries, and a bundle for
//! runc.

use crate::command::read;
use anyhow::{Context, Result};
use std::fs::{Permissions, copy, create_dir_all, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The smallest container that runc accepts, with the namespaces that make runc use `pivot_root`. It prints
/// `GREETING`.
pub const BUNDLE: &str = r#"{
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

/// Copies a program, and the libraries that the dynamic linker loads for it to the same paths.
///
/// # Errors
/// If a file cannot be copied.
pub fn program(root: &Path, from: &Path, to: &str) -> Result<()> {
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
