//! A program: ELF headers, the line of a script, chains of interpreters. Cut at the first byte 0xFE, the
//! second part is the file `/i`, which the first may name as its interpreter.
#![no_main]

use std::fs::{self, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use repot::facts::program::{self, Machine};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let shared = std::path::Path::new("/dev/shm");
    let folder = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    let folder = folder.expect("a temporary directory");
    for name in ["p", "i"] {
        fs::write(folder.path().join(name), "").expect("a file");
        fs::set_permissions(folder.path().join(name), Permissions::from_mode(0o755)).expect("a mode");
    }
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |&byte| byte == 0xfe);
    for name in ["p", "i"] {
        fs::write(FOLDER.path().join(name), parts.next().unwrap_or_default()).expect("a file");
    }
    let root = File::open(FOLDER.path()).expect("the directory");
    for machine in [Machine::running(), Machine::named(b"i686"), Machine::named(b"aarch64")] {
        if let Err(why) = program::test(&root.as_fd(), b"/p", None, machine) {
            assert!(!why.to_string().is_empty());
        }
    }
});
