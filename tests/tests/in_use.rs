//! Whatever else uses the old root keeps what it had: its mounts, its open files, its processes.
use std::fs::File;
use std::os::unix::fs::FileExt;

use repot_tests::rehome::{Rehomed, rehome, run};
use repot_tests::sandbox::Setup;
use repot_tests::stage::{Stage, prepare};
use repot_tests::trees::{Fs, one_of_each};
use rustix::fs::{Mode, OFlags, openat};

/// Runs with `mode=move` on a root that `build` puts to use, which must then stay where it is, with all
/// mounts.
fn stays(fs: Fs, reason: &str, build: impl FnOnce(&Stage) + Send) -> Rehomed {
    let rehomed = rehome(fs, |stage| {
        stage.plant(&one_of_each());
        build(stage);
    });
    let log = rehomed.running.log();
    assert!(log.contains(&format!("/ is in use: {reason}")), "{log}");
    let (before, after) = (&rehomed.prepared.mounts["/"][0].what, &rehomed.mounts["/"][0].what);
    assert_eq!(before.device, after.device, "it moved:\n{log}");
    rehomed.check_tree();
    rehomed.check_mounts();
    rehomed
}

#[test]
fn a_directory_mounted_on_itself() {
    for fs in Fs::ALL {
        stays(fs, "\"/self\" is a bind mount of \"/self\"", |stage| {
            stage.file("self/file", b"kept");
            stage.bind("self", "self");
        });
    }
}

#[test]
fn a_directory_mounted_elsewhere() {
    for fs in Fs::ALL {
        stays(fs, "\"/srv\" is a bind mount of \"/data\"", |stage| {
            stage.file("data/file", b"kept");
            stage.dir("srv");
            stage.bind("data", "srv");
        });
    }
}

#[test]
fn a_file_mounted_on_a_file() {
    for fs in Fs::ALL {
        stays(fs, "\"/conf2\" is a bind mount of \"/conf\"", |stage| {
            stage.file("conf", b"kept");
            stage.file("conf2", b"hidden");
            stage.bind("conf", "conf2");
        });
    }
}

#[test]
fn a_bind_mount_below_another_mount() {
    for fs in Fs::ALL {
        stays(fs, "\"/run/data\" is a bind mount of \"/data\"", |stage| {
            stage.file("data/file", b"kept");
            stage.mount(Fs::Tmpfs, "run");
            stage.dir("run/data");
            stage.bind("data", "run/data");
        });
    }
}

/// A bind mount of a directory in another file system does not depend on the root.
#[test]
fn a_bind_mount_of_something_else_moves_along() {
    for fs in Fs::ALL {
        let moved = rehome(fs, |stage| {
            stage.mount(Fs::Tmpfs, "run");
            stage.file("run/data/file", b"kept");
            stage.dir("srv");
            stage.bind("run/data", "srv");
        });
        moved.check();
    }
}

/// Somebody has a large file open: the move truncates nothing of it, and the new root has all of it too.
#[test]
fn a_file_that_somebody_holds_is_not_truncated() {
    let contents: Vec<u8> = (0..5 << 20).map(|at: u32| at.to_le_bytes()[at as usize % 3]).collect();
    for fs in Fs::ALL {
        for threads in [1, 4] {
            let prepared = prepare(fs, |stage| {
                stage.install(&format!("mode=move\nthreads={threads}\n"));
                stage.file("held", &contents);
                stage.file("linked", &contents);
                rustix::fs::linkat(
                    stage.root(),
                    "linked",
                    stage.root(),
                    "another",
                    rustix::fs::AtFlags::empty(),
                )
                .expect("a hard link");
            });
            let open = |name: &str| {
                let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
                File::from(openat(&prepared.view, name, flags, Mode::empty()).expect("the file"))
            };
            let held = [open("held"), open("linked")];
            let moved = run(prepared, &Setup::default());
            moved.check_moved();
            moved.check_tree();
            for file in held {
                let mut found = vec![0; contents.len()];
                file.read_exact_at(&mut found, 0).expect("the whole file");
                assert!(found == contents, "{fs:?}: the held file has other contents");
            }
        }
    }
}
