//! One test for each row of the list of what the program before this one got wrong (LinuxKit's `init.go`; the table is in the
//! project's notes on its peers, section 1), named after the row. Each fails if repot had that bug.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use repot_tests::intercept::{Calls, Verdict};
use repot_tests::programs;
use repot_tests::rehome::{AFTER_BOOT, Rehomed, rehome, run};
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::snapshot::{Atime, Kind, Rules, difference, snapshot};
use repot_tests::stage::{Prepared, Stage, prepare, prepare_with};
use repot_tests::trees::{Data, Fs, Plant, What, hostile, plant};
use repot_tests::twin::Twin;

const MIB: u64 = 1 << 20;

/// Moves a tree that `build` makes, from a ramfs and from a tmpfs, checks what always has to hold, and hands over the result.
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

#[test]
fn row_01_mounted_disk_is_never_entered_or_deleted() {
    for fs in Fs::ALL {
        let moved = rehome(fs, |stage| {
            // At depth 2 and deeper, where a check of the top-level entries alone does not see it.
            plant(stage.mount(Fs::Tmpfs, "data/disk"), Fs::Tmpfs, &hostile());
            stage.mount(Fs::Ramfs, "var/lib/other");
            stage.file("var/lib/other/file", b"kept");
            stage.dir("media/usb");
            stage.bind("data/disk/files", "media/usb");
        });
        moved.check();
        assert_eq!(
            fs::read(inside(&moved, "var/lib/other/file")).expect("a file on the other disk"),
            b"kept"
        );
        assert_eq!(
            fs::metadata(inside(&moved, "media/usb/9441279")).map(|meta| meta.len()).ok(),
            Some(9_441_279)
        );
        // No byte of the disk was copied into the new root, beneath its mount point.
        assert!(!moved.after.keys().any(|path| path.starts_with(b"data/disk/")));
    }
}

#[test]
fn row_02_device_nodes_stay_device_nodes() {
    let nodes = [
        ("console", What::Char(5, 1), (Kind::Char, (5, 1))),
        ("null", What::Char(1, 3), (Kind::Char, (1, 3))),
        ("sda", What::Block(8, 0), (Kind::Block, (8, 0))),
    ];
    let tree: Vec<_> =
        nodes.iter().map(|(name, what, _)| one(&format!("nodes/{name}"), what.clone())).collect();
    each(
        |stage| {
            stage.plant(&[dir("nodes")]);
            stage.plant(&tree);
        },
        |moved| {
            for (name, _, wanted) in &nodes {
                let entry = &moved.after[format!("nodes/{name}").as_bytes()];
                assert_eq!((entry.kind, entry.rdev), *wanted);
            }
        },
    );
}

#[test]
fn row_03_setuid_and_setgid_survive_the_change_of_owner() {
    let tree = [
        file("su", 5).mode(0o4755),
        file("sudo", 5).mode(0o6755).owned(7, 8),
        file("large", 3 * MIB).mode(0o6711).owned(70_000, 0),
    ];
    each(
        |stage| stage.plant(&tree),
        |moved| {
            let modes: Vec<_> =
                ["su", "sudo", "large"].iter().map(|name| moved.after[name.as_bytes()].mode).collect();
            assert_eq!(modes, [0o4755, 0o6755, 0o6711]);
        },
    );
}

#[test]
fn row_04_umask_takes_nothing_from_modes() {
    let tree = [
        one("tmp", What::Dir).mode(0o1777),
        one("team", What::Dir).mode(0o2775),
        file("open", 5).mode(0o666),
        one("pipe", What::Fifo).mode(0o622),
        one("tty", What::Char(4, 0)).mode(0o777),
    ];
    each(
        |stage| stage.plant(&tree),
        |moved| {
            let modes: Vec<_> = ["tmp", "team", "open", "pipe", "tty"]
                .iter()
                .map(|name| moved.after[name.as_bytes()].mode)
                .collect();
            assert_eq!(modes, [0o1777, 0o2775, 0o666, 0o622, 0o777]);
        },
    );
}

#[test]
fn row_05_named_pipe_is_moved() {
    each(
        |stage| stage.plant(&[one("pipe", What::Fifo)]),
        |moved| assert_eq!(moved.after[b"pipe".as_slice()].kind, Kind::Fifo),
    );
}

#[test]
fn row_06_socket_and_whiteout_are_moved() {
    each(
        |stage| {
            stage.plant(&[
                one("a file", What::Fifo),
                one("socket", What::Socket),
                one("zz", What::Char(0, 0)),
            ])
        },
        |moved| {
            assert_eq!(moved.after[b"socket".as_slice()].kind, Kind::Socket);
            assert_eq!(moved.after[b"zz".as_slice()].kind, Kind::Char);
        },
    );
}

#[test]
fn row_07_what_does_not_fit_is_seen_before_anything_is_touched() {
    for limit in ["size=1m", "nr_inodes=20"] {
        let prepared = prepare(Fs::Tmpfs, |stage| {
            stage.install(&format!("mode=move\n{limit}\n"));
            stage.plant(&hostile());
        });
        // Not a move that fails and is undone: none is begun.
        let changing = vec![libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_ftruncate, libc::SYS_mknodat];
        let mut running = prepared.start(&Setup { calls: Calls::These(changing), ..Setup::default() });
        let mut changes = 0;
        let end = running.wait_until(DEADLINE, None, &mut |call| {
            changes += u32::from(call.number != libc::SYS_execve && call.program == 1);
            Verdict::Continue
        });
        assert_eq!((end, changes), (End::Init("ready".into()), 0), "{}", running.log());
        assert!(running.log().contains(limit.split_once('=').expect("a key").0), "{}", running.log());
        let rules = Rules { atime: Atime::Ignored, ..AFTER_BOOT };
        let now = snapshot(running.root()).expect("a snapshot");
        assert_eq!(difference(&prepared.before, &now, rules), "", "with {limit}");
        let device = |table: &repot_tests::mounts::Table| table["/"][0].what.device.clone();
        assert_eq!(device(&prepared.mounts), device(&running.mounts()), "with {limit}");
    }
}

#[test]
fn row_08_contents_of_mnt_are_moved_and_freed() {
    each(
        |stage| {
            stage.plant(&[
                dir("mnt").mode(0o710).owned(3, 4).times((1, 2), (3, 4)),
                file("mnt/large", 2 * MIB),
                dir("mnt/dir"),
                file("mnt/dir/file", 5),
            ]);
        },
        |moved| {
            let mnt = &moved.after[b"mnt".as_slice()];
            assert_eq!((mnt.mode, mnt.uid, mnt.gid, mnt.mtime), (0o710, 3, 4, (3, 4)));
            assert_eq!(moved.after[b"mnt/large".as_slice()].size, 2 * MIB);
        },
    );
}

#[test]
fn row_09_no_mnt_is_needed() {
    each(
        |stage| assert!(!stage.path("mnt").exists()),
        |moved| {
            let top: Vec<_> = moved.after.keys().filter(|path| !path.contains(&b'/')).collect();
            assert_eq!(top, [&b""[..], b"etc", b"init", b"sbin"], "nothing was made for the move's own use");
        },
    );
}

#[test]
fn row_10_existing_mounts_are_carried() {
    each(
        |stage| {
            for place in ["proc", "sys", "dev", "dev/pts", "dev/shm", "run", "run/user/0"] {
                stage.mount(Fs::Tmpfs, place);
                stage.file(&format!("{place}/marker"), place.as_bytes());
            }
        },
        |moved| {
            assert_eq!(moved.mounts.len(), 8);
            assert_eq!(fs::read(inside(moved, "run/user/0/marker")).expect("the inner mount"), b"run/user/0");
        },
    );
}

/// At every point between two calls that free something, what both trees hold together is what the old one held before, and a
/// little.
#[test]
fn row_11_peak_memory_does_not_grow_with_the_largest_file() {
    const FREEING: [i64; 2] = [libc::SYS_ftruncate, libc::SYS_unlinkat];
    for threads in [1, 2] {
        let prepared = prepare(Fs::Tmpfs, |stage| {
            stage.install(&format!("mode=move\nthreads={threads}\n"));
            stage.plant(&[file("large", 64 * MIB), file("large too", 20 * MIB + 5), file("small", 5)]);
        });
        let used = |root: &_| {
            let room = rustix::fs::fstatfs(root).expect("statfs");
            (room.f_blocks - room.f_bfree) * 4096
        };
        let before = used(&prepared.view);
        let (mut most, mut asked) = (0, 0);
        let mut running = prepared.start(&Setup { calls: Calls::These(FREEING.into()), ..Setup::default() });
        let pid = running.pid();
        let end = running.wait_until(DEADLINE, None, &mut |_| {
            if let Some(new) = Twin::of(pid, &prepared.view) {
                asked += 1;
                most = most.max(used(&prepared.view) + used(new.root()));
            }
            Verdict::Continue
        });
        assert_eq!(end, End::Init("ready".into()), "{}", running.log());
        assert!(asked > 40, "looked {asked} times");
        let extra = most - before;
        let limit = threads * 2 * MIB + MIB / 2;
        assert!(extra < limit, "{} KiB more than the tree with {threads} threads", extra >> 10);
    }
}

#[test]
fn row_12_hard_links_stay_one_inode() {
    let link = |path: &str, first: &str| one(path, What::HardLink(first.into()));
    each(
        |stage| {
            stage.plant(&[dir("a"), dir("b"), file("b/file", 2 * MIB), link("a/file", "b/file")]);
            stage.plant(&[
                one("b/null", What::Char(1, 3)),
                link("null", "b/null"),
                link("a/again", "b/file"),
            ]);
        },
        |moved| {
            let entry = |path: &str| &moved.after[path.as_bytes()];
            assert_eq!((entry("a/file").nlink, entry("null").nlink), (3, 2));
            assert_eq!(entry("b/file").linked.as_deref(), Some(&b"a/again"[..]));
            let inode = |path: &str| fs::metadata(inside(moved, path)).expect("there").ino();
            assert_eq!(inode("a/file"), inode("b/file"));
        },
    );
}

#[test]
fn row_13_holes_stay_holes() {
    let hole = |path: &str, len: u64, data: Vec<Data>| one(path, What::File { len, data });
    each(
        |stage| {
            stage.plant(&[
                hole("hole", 40 * MIB, vec![]),
                hole("islands", 40 * MIB, vec![Data { at: 5, len: 10 }, Data { at: 39 * MIB, len: 4096 }]),
            ]);
        },
        |moved| {
            assert_eq!(moved.after[b"hole".as_slice()].blocks, 0);
            assert_eq!(moved.after[b"islands".as_slice()].blocks, 16, "two pages");
        },
    );
}

#[test]
fn row_14_times_of_directories_with_children_are_kept() {
    each(
        |stage| {
            stage.plant(&[
                dir("").times((1, 11), (2, 22)),
                dir("d").times((3, 33), (4, 44)),
                dir("d/e").times((5, 55), (6, 66)),
                file("d/e/f", 5).times((7, 77), (8, 88)),
                one("d/e/l", What::Symlink(b"f".to_vec())).times((9, 99), (10, 100)),
            ]);
        },
        |moved| {
            let times = |path: &str| (moved.after[path.as_bytes()].atime, moved.after[path.as_bytes()].mtime);
            assert_eq!(times(""), ((1, 11), (2, 22)));
            assert_eq!(times("d"), ((3, 33), (4, 44)));
            assert_eq!(times("d/e"), ((5, 55), (6, 66)));
            assert_eq!(times("d/e/f"), ((7, 77), (8, 88)));
            assert_eq!(times("d/e/l"), ((9, 99), (10, 100)));
        },
    );
}

#[test]
fn row_15_xattrs_acls_capabilities_and_flags_are_kept() {
    let moved = rehome(Fs::Tmpfs, |stage| stage.plant(&hostile()));
    moved.check();
    let entry = |path: &str| &moved.after[path.as_bytes()];
    let has = |path: &str, name: &str| entry(path).xattrs.keys().any(|key| key.to_str() == Ok(name));
    for (path, name) in [
        ("attributes/user", "user.colour"),
        ("attributes/trusted", "trusted.overlay.opaque"),
        ("attributes/trusted", "security.repot"),
        ("attributes/symlink", "trusted.on"),
        ("attributes/ping", "security.capability"),
        ("attributes/large ping", "security.capability"),
        ("attributes/acl", "system.posix_acl_access"),
        ("attributes/acl and default", "system.posix_acl_default"),
    ] {
        assert!(has(path, name), "{name} of {path}: {:?}", entry(path).xattrs);
    }
    assert_eq!(entry("flags/immutable").flags & 0x10, 0x10);
    assert_eq!(entry("flags/immutable directory").flags & 0x10, 0x10);
}

#[test]
fn row_16_arguments_reach_the_real_init() {
    let prepared = prepare(Fs::Ramfs, |stage| stage.install("mode=move\n"));
    let argv = ["/init", "single", "--", "foo"].map(str::to_owned).to_vec();
    let moved = run(prepared, &Setup { argv, ..Setup::default() });
    assert_eq!(moved.running.proc("cmdline"), b"/sbin/init\0single\0--\0foo\0");
}

#[test]
fn row_17_inits_are_tried_in_turn_and_tested_before_anything_is_touched() {
    // The first candidate does not work, and the one that does is the last of them.
    let moved = rehome(Fs::Ramfs, |stage| {
        stage.file("etc/repot.conf", b"mode=move\ninit=/lib/systemd/systemd\n");
        fs::rename(stage.path("sbin/init"), stage.path("spare")).expect("renamed");
        stage.file("sbin/init", b"not a program");
        stage.dir("bin");
        fs::rename(stage.path("spare"), stage.path("bin/sh")).expect("renamed");
    });
    moved.check_moved();
    assert_eq!(moved.running.proc_link("exe"), "/bin/sh");
    let log = moved.running.log();
    assert!(log.contains("/lib/systemd/systemd") && log.contains("does not exist"), "{log}");
    // None does: nothing was moved, and the reasons are told.
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.install("mode=move\nonerror=poweroff\n");
        fs::remove_file(stage.path("sbin/init")).expect("removed");
    });
    let mut running = prepared.start(&Setup::default());
    assert_eq!(running.wait(), End::Killed(2), "{}", running.log());
    assert!(
        running.log().contains("/sbin/init") && running.log().contains("does not exist"),
        "{}",
        running.log()
    );
    let rules = Rules { atime: Atime::Ignored, ..AFTER_BOOT };
    assert_eq!(difference(&prepared.before, &snapshot(&prepared.view).expect("a snapshot"), rules), "");
}

#[test]
fn row_18_only_process_1_moves_a_root() {
    let prepared = prepare(Fs::Ramfs, |stage| {
        stage.install("mode=move\n");
        stage.program("parent", programs::helper());
        stage.plant(&hostile());
    });
    let argv = ["parent", "/init"].map(str::to_owned).to_vec();
    let mut running = prepared.start(&Setup { program: "/parent".into(), argv, ..Setup::default() });
    assert_eq!(running.wait(), End::Init("exit status: 2".into()), "{}", running.log());
    let rules = Rules { atime: Atime::Ignored, ..AFTER_BOOT };
    assert_eq!(difference(&prepared.before, &snapshot(&prepared.view).expect("a snapshot"), rules), "");
}

#[test]
fn row_19_nothing_is_copied_where_it_is_pointless() {
    // A tmpfs that is not the initial root: a system that has been re-homed already, or a container.
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.install("");
        stage.plant(&hostile());
    });
    let stayed = run(prepared, &Setup::default());
    assert_eq!(stayed.prepared.mounts["/"][0].what.device, stayed.mounts["/"][0].what.device);
    stayed.check_tree();
}

#[test]
fn row_20_a_32_bit_build_knows_a_ramfs() {
    let Some(program) = programs::repot_init_for("i686-unknown-linux-musl") else {
        eprintln!("not run: there is no target i686-unknown-linux-musl (rustup target add)");
        return;
    };
    for fs in Fs::ALL {
        let moved = rehome(fs, |stage| {
            stage.program("init", &program);
            stage.plant(&hostile());
        });
        moved.check();
    }
}

#[test]
fn row_21_memory_of_the_mover_does_not_grow_with_the_number_of_files() {
    let prepared = prepare(Fs::Ramfs, |stage| {
        stage.install("mode=move\n");
        let tree: Vec<_> = (0..3000).map(|number| file(&format!("file {number}"), 40_000)).collect();
        stage.plant(&tree);
    });
    let moved = run(prepared, &Setup { calls: Calls::These(vec![]), ..Setup::default() });
    moved.check();
    let peak = moved.running.peak().expect("measured");
    assert!(peak < 3 << 10, "{peak} KiB");
}

/// Whatever is opened during the move is opened by name in a directory that is open already, and not followed.
#[test]
fn row_22_nothing_is_opened_by_path_or_followed_and_no_descriptor_leaks() {
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.install("mode=move\n");
        stage.mount(Fs::Tmpfs, "disk");
        stage.file("disk/file", b"not to be touched");
        stage.plant(&hostile());
        stage.link("to disk", "disk");
        stage.link("to file", "disk/file");
    });
    let mut running =
        prepared.start(&Setup { calls: Calls::These(vec![libc::SYS_openat]), ..Setup::default() });
    let (mut creating, mut wrong) = (false, vec![]);
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        let flags = i32::try_from(call.args[2] & 0xffff_ffff).unwrap_or(0);
        creating |= call.number == libc::SYS_openat && flags & libc::O_CREAT != 0;
        let path = call.text(1);
        // From the first file that is made in the new root on.
        if creating && call.number == libc::SYS_openat && call.program == 1 && path != b"/dev/console" {
            let followed = flags & libc::O_NOFOLLOW == 0 && path != b"." && path != b"..";
            if followed || flags & libc::O_CLOEXEC == 0 || path.contains(&b'/') {
                wrong.push(format!("openat {:?} {flags:#o}", path.escape_ascii().to_string()));
            }
        }
        Verdict::Continue
    });
    assert_eq!(end, End::Init("ready".into()), "{}", running.log());
    assert!(creating);
    // procfs is read by path through its own detached mount.
    wrong.retain(|open| !open.contains("self/") && !open.contains("meminfo"));
    assert_eq!(wrong, [""; 0]);
    let fds = fs::read_dir(format!("/proc/{}/fd", running.pid().as_raw_pid())).expect("descriptors").count();
    assert_eq!(fds, 4, "the three standard ones and the helper's own");
}

#[test]
fn row_23_one_line_tells_what_happened() {
    let moved = rehome(Fs::Ramfs, |stage| stage.plant(&[file("file", 3 * MIB), one("pipe", What::Fifo)]));
    let log = moved.running.log();
    assert_eq!(log.lines().count(), 1, "{log}");
    for word in ["move", "entries", "MiB", " ms", "extra", "mounts", "/sbin/init"] {
        assert!(log.contains(word), "{word}: {log}");
    }
    // With nothing to write to, it boots all the same.
    let prepared = prepare(Fs::Ramfs, |stage| stage.install("mode=move\n"));
    run(prepared, &Setup { closed: true, ..Setup::default() }).check();
}

#[test]
fn row_24_small_program_and_memory_that_does_not_grow_with_a_directory() {
    let size = fs::metadata(programs::repot_init()).expect("the program").len();
    assert!(size < 400_000, "{size} bytes");
    let peak = |count: u32| {
        let prepared: Prepared = prepare_with(Fs::Ramfs, &[], |stage| {
            stage.install("mode=move\nthreads=2\n");
            repot_tests::trees::crowd(stage.root(), count);
        });
        let moved = run(prepared, &Setup { calls: Calls::These(vec![]), ..Setup::default() });
        moved.running.peak().expect("measured")
    };
    let (few, many) = (peak(10), peak(30_000));
    assert!(many < few + 256, "{few} KiB for a few entries, {many} KiB for many");
}
