//! Mounts, programs, and system calls.
use std::fs;

use repot_harness::build::Arch;
use repot_snapshot::{Atime, Rules, difference, snapshot};
use repot_tests::intercept::{Calls, Verdict};
use repot_tests::programs;
use repot_tests::rehome::{AFTER_BOOT, rehome, run};
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::stage::prepare;
use repot_tests::trees::{Fs, What, hostile, plant};

use super::{MIB, each, file, inside, one};

#[test]
fn row_01_mounted_disk_is_never_entered_or_deleted() {
    for fs in Fs::ALL {
        let moved = rehome(fs, |stage| {
            // At depth 2 and below, where a check of the top-level entries alone misses it.
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
        // No byte of the disk was copied into the new root, below its mount point.
        assert!(!moved.after.keys().any(|path| path.starts_with(b"data/disk/")));
    }
}

#[test]
fn row_09_no_mnt_is_needed() {
    each(
        |stage| assert!(!stage.path("mnt").exists()),
        |moved| {
            let top: Vec<_> = moved.after.keys().filter(|path| !path.contains(&b'/')).collect();
            // Only /init goes.
            assert_eq!(top, [&b""[..], b"etc", b"sbin"], "nothing was made for the move's own use");
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

#[test]
fn row_16_arguments_reach_the_real_init() {
    let prepared = prepare(Fs::Ramfs, |stage| stage.install("mode=move\n"));
    let argv = ["/init", "single", "--", "foo"].map(str::to_owned).to_vec();
    let moved = run(prepared, &Setup { argv, ..Setup::default() });
    assert_eq!(moved.running.proc("cmdline"), b"/sbin/init\0single\0--\0foo\0");
}

#[test]
fn row_17_inits_are_tried_in_turn_and_tested_before_anything_is_touched() {
    // The first candidate is not executable; the last one is.
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
    // No candidate is executable: nothing was moved, and the reasons are logged.
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
    // A tmpfs that is not the initial root: a system that was re-homed before, or a container.
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
    let Some(program) = programs::repot_init_for(Arch::I686) else {
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

/// During the move, everything is opened by name in an open directory, without following symlinks.
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
        // From the first file that is created in the new root on. In the end that is `/`.
        let own = path == b"/" || path == b"/dev/console";
        if creating && call.number == libc::SYS_openat && call.program == 1 && !own {
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
    // Without anything to log to, it boots all the same.
    let prepared = prepare(Fs::Ramfs, |stage| stage.install("mode=move\n"));
    run(prepared, &Setup { closed: true, ..Setup::default() }).check();
}
