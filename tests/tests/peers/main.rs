//! One test for each known bug of LinuxKit's `init.go`, named after the bug. Each fails if repot had that
//! bug.
use std::path::{Path, PathBuf};

use repot_tests::rehome::{Rehomed, rehome};
use repot_tests::stage::Stage;
use repot_tests::trees::{Data, Fs, Plant, What};

mod memory;
mod system;
mod tree;

const MIB: u64 = 1 << 20;

/// Moves a tree that `build` creates, from a ramfs and from a tmpfs, checks what must always hold, and passes
/// the result on.
fn each(build: impl Fn(&Stage) + Send + Sync, then: impl Fn(&Rehomed)) {
    for fs in Fs::ALL {
        let moved = rehome(fs, |stage| build(stage));
        moved.check();
        then(&moved);
    }
}

fn one(path: &str, what: What) -> Plant {
    Plant { path: path.into(), what, meta: Default::default() }
}

fn file(path: &str, len: u64) -> Plant {
    one(path, What::File { len, data: vec![Data { at: 0, len }] })
}

fn dir(path: &str) -> Plant {
    one(path, What::Dir).mode(0o755)
}

/// The new root as the machine sees it.
fn inside(moved: &Rehomed, path: &str) -> PathBuf {
    Path::new(&format!("/proc/{}/root", moved.running.pid().as_raw_pid())).join(path)
}
