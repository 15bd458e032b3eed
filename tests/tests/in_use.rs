//! Whatever else uses the old root keeps what it had: its mounts, its open files, its processes.
use std::fs::File;
use std::os::unix::fs::FileExt;

use repot_snapshot::{Rules, difference, snapshot};
use repot_tests::intercept::{Calls, Verdict};
use repot_tests::mounts::{Table, carried};
use repot_tests::programs;
use repot_tests::rehome::{AFTER_BOOT, Rehomed, rehome, run};
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::stage::{Stage, prepare};
use repot_tests::trees::{Fs, one_of_each};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};

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

/// Runs with `mode=move` on a root with bind mounts of itself. All of it moves, and each mount shows what it
/// showed before; `files` have these contents.
fn moves(fs: Fs, files: &[(&str, &str)], build: impl FnOnce(&Stage) + Send) -> Rehomed {
    let moved = rehome(fs, |stage| {
        stage.plant(&one_of_each());
        build(stage);
    });
    check_moved(&moved, files);
    moved
}

fn check_moved(moved: &Rehomed, files: &[(&str, &str)]) {
    moved.check();
    for (path, contents) in files {
        let at = format!("/proc/{}/root/{path}", moved.running.pid().as_raw_pid());
        let found = std::fs::read_to_string(&at).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(found, *contents, "{path}\n{}", moved.running.log());
    }
    let device = &moved.mounts["/"][0].what.device;
    assert_ne!(*device, moved.prepared.mounts["/"][0].what.device);
    let own = |table: &Table, device: &str| {
        table.values().flatten().filter(|mount| mount.what.device == device).count()
    };
    let before = own(&moved.prepared.mounts, &moved.prepared.mounts["/"][0].what.device);
    assert_eq!(own(&moved.mounts, device), before, "bind mounts of the new root");
}

#[test]
fn directories_mounted_on_themselves() {
    for fs in Fs::ALL {
        moves(fs, &[("self/file", "kept"), ("self/inner/file", "too")], |stage| {
            stage.file("self/file", b"kept");
            stage.file("self/inner/file", b"too");
            stage.bind("self", "self");
            stage.bind("self/inner", "self/inner");
            // Stacked.
            stage.bind("self/inner", "self/inner");
        });
    }
}

#[test]
fn directories_mounted_elsewhere() {
    for fs in Fs::ALL {
        let files = [("srv/file", "kept"), ("opt/x/in", "deep"), ("var/in", "deep"), ("srv/deep/in", "deep")];
        moves(fs, &files, |stage| {
            stage.file("data/file", b"kept");
            stage.file("data/deep/in", b"deep");
            stage.dir("srv");
            stage.bind("data", "srv");
            stage.dir("opt/x");
            // A bind of a bind.
            stage.bind("srv/deep", "opt/x");
            // On a directory of the tree that a bind shows elsewhere.
            stage.dir("var");
            stage.file("var/hidden", b"below");
            stage.bind("opt/x", "var");
        });
    }
}

#[test]
fn files_mounted_on_files() {
    let large = "0123456789abcdef".repeat(200_000);
    for fs in Fs::ALL {
        let files = [("conf2", "kept"), ("run/conf", "kept"), ("srv/in", "kept"), ("large", &large)];
        moves(fs, &files, |stage| {
            stage.file("conf", b"kept");
            stage.file("conf2", b"hidden");
            stage.bind("conf", "conf2");
            stage.file("large", large.as_bytes());
            stage.bind("large", "large");
            // In another file system, and in a bind.
            stage.mount(Fs::Tmpfs, "run");
            stage.file("run/conf", b"hidden");
            stage.bind("conf2", "run/conf");
            stage.file("data/in", b"hidden");
            stage.dir("srv");
            stage.bind("data", "srv");
            stage.bind("conf", "srv/in");
        });
    }
}

#[test]
fn bind_mounts_below_other_mounts() {
    for fs in Fs::ALL {
        moves(fs, &[("mnt/data/file", "kept"), ("mnt/a/b/file", "on top")], |stage| {
            stage.file("data/file", b"kept");
            stage.mount(Fs::Tmpfs, "mnt");
            stage.dir("mnt/data");
            stage.bind("data", "mnt/data");
            stage.dir("mnt/a/b");
            stage.bind("data", "mnt/a/b");
            // Hides the last one.
            stage.mount(Fs::Ramfs, "mnt/a");
            stage.file("mnt/a/b/file", b"on top");
            stage.mount(Fs::Tmpfs, "mnt/beside");
        });
    }
}

/// Mounts on a bind, at mount points that may exist only in what it shows; what is mounted over a source or
/// over the bind itself.
#[test]
fn mounts_on_bind_mounts() {
    for fs in Fs::ALL {
        let files = [("srv/disk/file", "on the disk"), ("dir/file", "covers"), ("again/file", "kept")];
        moves(fs, &files, |stage| {
            stage.file("data/file", b"kept");
            stage.dir("data/disk");
            stage.dir("srv");
            stage.bind("data", "srv");
            stage.mount(Fs::Tmpfs, "srv/disk");
            stage.file("srv/disk/file", b"on the disk");
            stage.mount(Fs::Ramfs, "srv/disk/inner");
            stage.dir("again");
            stage.bind("data", "again");
            // Hides the source.
            stage.mount(Fs::Tmpfs, "data");
            // Covers a bind.
            stage.file("dir/file", b"below");
            stage.bind("dir", "dir");
            stage.mount(Fs::Tmpfs, "dir");
            stage.file("dir/file", b"covers");
        });
    }
}

#[test]
fn the_root_mounted_in_itself() {
    for fs in Fs::ALL {
        moves(fs, &[("mnt/etc/name", "kept"), ("proc/etc/name", "kept")], |stage| {
            stage.file("etc/name", b"kept");
            stage.mount(Fs::Tmpfs, "run");
            stage.dir("mnt");
            stage.dir("proc");
            stage.bind("", "mnt");
            stage.bind("mnt", "proc");
        });
    }
}

#[test]
fn flags_of_bind_mounts() {
    let each = [
        MountFlags::RDONLY | MountFlags::RELATIME,
        MountFlags::NOSUID | MountFlags::NOATIME,
        MountFlags::NODEV | MountFlags::STRICTATIME,
        MountFlags::NOEXEC | MountFlags::NODIRATIME | MountFlags::RELATIME,
        MountFlags::NOSYMFOLLOW | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV,
    ];
    for fs in Fs::ALL {
        let moved = moves(fs, &[("etc/name", "kept")], |stage| {
            stage.file("etc/name", b"kept");
            for (number, flags) in each.iter().enumerate() {
                let at = format!("at/{number}");
                stage.dir(&at);
                stage.bind("etc", &at);
                stage.flags(&at, *flags);
            }
            // A directory protected against changes.
            stage.bind("etc", "etc");
            stage.flags("etc", MountFlags::RDONLY);
        });
        let path = format!("/proc/{}/root/etc/name", moved.running.pid().as_raw_pid());
        let error = std::fs::write(path, "changed").expect_err("it is read-only");
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
    }
}

/// A group of peers, a slave of it, and one that is both.
#[test]
fn propagation_of_bind_mounts() {
    for fs in Fs::ALL {
        let moved = moves(fs, &[("c/in/file", "kept")], |stage| {
            stage.file("a/in/file", b"kept");
            ["b", "c", "d", "e", "g"].iter().for_each(|path| stage.dir(path));
            stage.bind("a", "b");
            stage.share("b");
            // Peers; the second shows only a part.
            stage.bind("b", "c");
            stage.bind("b/in", "g");
            stage.bind("b", "d");
            stage.propagate("d", MountPropagationFlags::DOWNSTREAM);
            stage.bind("b", "e");
            stage.propagate("e", MountPropagationFlags::DOWNSTREAM);
            stage.propagate("e", MountPropagationFlags::SHARED);
            // Propagates to all of them.
            stage.dir("a/point");
            stage.mount(Fs::Tmpfs, "b/point");
            stage.file("b/point/file", b"everywhere");
        });
        let what = |path: &str| moved.mounts[path][0].what.clone();
        assert_eq!(what("/c").groups, what("/b").groups);
        assert_eq!(what("/d").groups, (0, what("/b").groups.0));
        assert_eq!(what("/e").groups.1, what("/b").groups.0);
        assert!(what("/e").shared);
        assert_eq!(moved.mounts["/d/point"][0].what.root, "/");
    }
}

/// systemd and LinuxKit make everything shared; a bind made later is a peer of the root.
#[test]
fn bind_mounts_of_a_shared_root() {
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            stage.install("mode=move\n");
            stage.plant(&one_of_each());
            stage.file("var/lib/file", b"kept");
            stage.bind("var", "var");
            stage.share("var");
            stage.mount(Fs::Tmpfs, "var/lib/disk");
            stage.mount(Fs::Tmpfs, "run");
            stage.share("run");
            stage.dir("run/var");
            stage.bind("var/lib", "run/var");
        });
        let moved = run(prepared, &Setup { shared: true, ..Setup::default() });
        check_moved(&moved, &[("var/lib/file", "kept"), ("run/var/file", "kept")]);
        assert!(moved.mounts["/"][0].what.shared && moved.mounts["/var"][0].what.shared);
    }
}

/// What a bind mount shows was removed: it cannot be made again.
#[test]
fn a_bind_mount_of_what_is_gone() {
    for fs in Fs::ALL {
        let reason = "\"/srv\" is a bind mount of \"/data//deleted\" in it, where that cannot be found";
        let stayed = stays(fs, reason, |stage| {
            stage.dir("data");
            stage.dir("srv");
            stage.bind("data", "srv");
            std::fs::remove_dir(stage.path("data")).expect("removed");
            // Another one of that name is not the same.
            stage.file("data/deleted/file", b"not shown");
        });
        let log = stayed.running.log();
        assert!(log.contains("repot: stay: / is in use"), "{log}");
    }
}

/// A file that somebody holds is a mount point too: it is not truncated either.
#[test]
fn a_held_file_that_is_a_mount_point() {
    let contents = vec![7; 5 << 20];
    for fs in Fs::ALL {
        for name in ["small", "large"] {
            let contents = if name == "small" { &contents[..5000] } else { &contents[..] };
            let prepared = prepare(fs, |stage| {
                stage.install("mode=move\n");
                stage.mount(Fs::Tmpfs, "run");
                stage.file("run/over", b"on top");
                stage.file(name, contents);
                stage.bind("run/over", name);
            });
            let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
            let held = File::from(openat(&prepared.view, name, flags, Mode::empty()).expect("the file"));
            let moved = run(prepared, &Setup::default());
            moved.check();
            let mut found = vec![0; contents.len()];
            held.read_exact_at(&mut found, 0).expect("the whole file");
            assert!(found == contents, "{fs:?}: the held file has other contents");
        }
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

/// After a chroot into a plain directory, the root is not the root of a mount, and what else uses the file
/// system cannot be seen: nothing moves.
#[test]
fn a_root_that_is_a_plain_directory_is_left_alone() {
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            stage.install("mode=move\n");
            for (path, program) in [("init", programs::repot_init()), ("sbin/init", programs::helper())] {
                stage.program(&format!("plain/{path}"), program);
            }
            stage.file("plain/etc/repot.conf", b"mode=move\n");
            stage.file("plain/file", b"kept");
            stage.mount(Fs::Tmpfs, "plain/disk");
        });
        let mut running = prepared.start(&Setup { chroot: Some("/plain".into()), ..Setup::default() });
        let end = running.wait();
        let log = running.log();
        assert_eq!(end, End::Init("ready".into()), "{log}");
        assert!(log.contains("stay: / is not the root of a mount, but a directory in one"), "{log}");
        let after = snapshot(&prepared.view).expect("a snapshot");
        let difference = difference(&prepared.before, &after, Rules { read: &READ, ..Rules::EXACT });
        assert!(difference.is_empty(), "{difference}");
    }
}

/// What the init reads in the plain directory.
const READ: [&str; 3] = ["plain/init", "plain/sbin/init", "plain/etc/repot.conf"];

/// The last call before the switch fails, after the tree and all mounts were in the new root.
#[test]
fn everything_comes_back_if_the_switch_fails() {
    for fs in Fs::ALL {
        for others in [false, true] {
            let prepared = prepare(fs, |stage| {
                stage.install("mode=move\n");
                stage.plant(&one_of_each());
                stage.file("self/file", b"kept");
                stage.dir("self/in");
                stage.bind("self", "self");
                stage.flags("self", MountFlags::RDONLY | MountFlags::NOSUID);
                stage.bind("self/file", "self/file");
                stage.dir("srv");
                stage.bind("self", "srv");
                stage.share("srv");
                if others {
                    stage.mount(Fs::Tmpfs, "srv/in");
                    stage.mount(Fs::Tmpfs, "disk");
                }
            });
            let refused = [libc::SYS_pivot_root, libc::SYS_chroot];
            let calls = Calls::These(refused.to_vec());
            let mut running = prepared.start(&Setup { calls, ..Setup::default() });
            let end = running.wait_until(DEADLINE, None, &mut |call| {
                if refused.contains(&call.number) { Verdict::Fail(Errno::IO) } else { Verdict::Continue }
            });
            let log = running.log();
            assert_eq!(end, End::Init("ready".into()), "{log}");
            assert!(log.contains("stay: bind failed (switch: chroot"), "{log}");
            assert_eq!(carried(&prepared.mounts), carried(&running.mounts()), "{log}");
            let after = snapshot(&prepared.view).expect("a snapshot");
            assert_eq!(difference(&prepared.before, &after, AFTER_BOOT), "", "{log}");
        }
    }
}
