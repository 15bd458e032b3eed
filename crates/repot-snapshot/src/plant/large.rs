//! Trees that are too large for a list.
use std::ffi::CString;
use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags, mkdirat, mknodat, openat};

/// A directory `crowd` with `count` empty files.
///
/// # Panics
/// If it cannot be created.
pub fn crowd(top: impl AsFd, count: u32) {
    mkdirat(&top, c"crowd", Mode::from_raw_mode(0o755)).expect("mkdir crowd");
    let dir = open(&top, "crowd");
    for number in 0..count {
        let name = CString::new(format!("one of the many entries, number {number}")).expect("no NUL");
        mknodat(&dir, &name, FileType::RegularFile, Mode::from_raw_mode(0o640), 0).expect("mknod");
    }
}

/// Directories `levels` deep, below `shaft`, with a file in every hundredth and in the last.
///
/// # Panics
/// If it cannot be created.
pub fn shaft(top: impl AsFd, levels: u32) {
    let mode = Mode::from_raw_mode(0o750);
    mkdirat(&top, c"shaft", mode).expect("mkdir shaft");
    let mut dir = open(&top, "shaft");
    for level in 1..levels {
        let name = format!("d{level}");
        mkdirat(&dir, name.as_str(), mode).expect("mkdir");
        dir = open(&dir, &name);
        if level % 100 == 0 || level + 1 == levels {
            mknodat(&dir, c"file", FileType::RegularFile, mode, 0).expect("mknod");
        }
    }
}

fn open(dir: impl AsFd, name: &str) -> rustix::fd::OwnedFd {
    openat(dir, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("open")
}
