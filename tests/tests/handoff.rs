//! The real init finds the process as the kernel would start it.
use std::collections::BTreeSet;
use std::fs;

use repot_tests::rehome::{Rehomed, run};
use repot_tests::sandbox::{Running, Setup};
use repot_tests::stage::{Prepared, prepare};
use repot_tests::trees::{Fs, Plant, What, one_of_each};

fn prepared() -> Prepared {
    prepare(Fs::Ramfs, |stage| {
        stage.install("mode=move\n");
        stage.plant(&one_of_each());
    })
}

fn status(running: &Running, field: &str) -> String {
    let status = String::from_utf8(running.proc("status")).expect("text");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.strip_prefix(':')).expect("a field of status").trim().to_owned()
}

fn descriptors(running: &Running) -> BTreeSet<String> {
    let fds = fs::read_dir(format!("/proc/{}/fd", running.pid().as_raw_pid())).expect("descriptors");
    let mut open = BTreeSet::new();
    for fd in fds {
        let fd = fd.expect("a descriptor");
        let target = fs::read_link(fd.path()).expect("a target").to_string_lossy().into_owned();
        // The helper's connection to the test.
        if !target.starts_with("socket:") {
            open.insert(format!("{} {target}", fd.file_name().to_string_lossy()));
        }
    }
    open
}

#[test]
fn arguments_and_environment_are_handed_on() {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let setup = Setup {
        argv: words(&["/init", "single", "", "--", "-x", "key=value with space"]),
        env: words(&[
            "HOME=/",
            "TERM=linux",
            "BOOT_IMAGE=/vmlinuz",
            "EMPTY=",
            "no equals sign",
            "A=1",
            "A=2",
        ]),
        ..Setup::default()
    };
    let moved = run(prepared(), &setup);
    moved.check();
    // As with the kernel, the name is that of the executed program.
    let argv = moved.running.proc("cmdline");
    assert_eq!(
        argv.escape_ascii().to_string(),
        "/sbin/init\\x00single\\x00\\x00--\\x00-x\\x00key=value with space\\x00"
    );
    let environ = String::from_utf8(moved.running.proc("environ")).expect("text");
    let mut environ: Vec<_> = environ.split_terminator('\0').collect();
    assert!(environ.pop().is_some_and(|last| last.starts_with("REPOT_TEST_SOCKET=")));
    assert_eq!(environ, setup.env);
}

#[test]
fn mask_signals_directory_and_identity_are_the_kernels() {
    let moved = run(prepared(), &Setup::default());
    assert_eq!(status(&moved.running, "Umask"), "0022");
    for signals in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(status(&moved.running, signals), "0000000000000000", "{signals}");
    }
    assert_eq!(status(&moved.running, "Threads"), "1");
    assert_eq!(status(&moved.running, "Uid"), "0\t0\t0\t0");
    assert!(status(&moved.running, "NSpid").ends_with("\t1"));
    // From outside, the sandbox's own root is also written as "/".
    assert_eq!(moved.running.proc_link("cwd"), "/");
    assert_eq!(moved.running.proc_link("root"), "/");
    assert_eq!(moved.running.proc_link("exe"), "/sbin/init");
    same_mount(&moved);
}

/// Root and working directory are the new root, not what is below it.
fn same_mount(moved: &Rehomed) {
    let path = |what: &str| format!("/proc/{}/{what}/.", moved.running.pid().as_raw_pid());
    let device =
        |what: &str| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path(what)).expect("a directory"));
    let new = rustix::fs::fstat(&moved.root).expect("the new root").st_dev;
    assert_eq!((device("cwd"), device("root")), (new, new));
}

#[test]
fn only_the_three_standard_descriptors_are_open() {
    let moved = run(prepared(), &Setup { stray: true, ..Setup::default() });
    let numbers: Vec<_> = descriptors(&moved.running).into_iter().map(|fd| fd[..1].to_owned()).collect();
    assert_eq!(numbers, ["0", "1", "2"]);
}

/// As on an initramfs without `/dev/console` and `/dev/null`: the kernel starts `/init` with no open
/// descriptor.
#[test]
fn boots_without_open_descriptors_and_device_nodes() {
    let moved = run(prepared(), &Setup { closed: true, ..Setup::default() });
    moved.check();
    assert_eq!(descriptors(&moved.running), BTreeSet::new());
}

/// `mount=` makes the file systems that the real init expects, on the new root, and never over a mount.
#[test]
fn file_systems_are_mounted_once_before_the_real_init() {
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.install("mode=move\nmount=devpts,proc,sysfs,shm,run\n");
        stage.mount(Fs::Tmpfs, "sys");
        // A mount behind a symbolic link.
        stage.dir("var/run");
        stage.mount(Fs::Ramfs, "var/run");
        stage.link("run", "var/run");
    });
    let moved = run(prepared, &Setup::default());
    let mounts = String::from_utf8(moved.running.proc("mounts")).expect("text");
    let at = |point: &str| {
        let of = |line: &str| {
            let mut fields = line.split(' ').skip(1);
            (fields.next() == Some(point)).then(|| fields.next().map(str::to_owned)).flatten()
        };
        mounts.lines().filter_map(of).collect::<Vec<_>>()
    };
    for (point, types) in [
        ("/", vec!["tmpfs"]),
        ("/proc", vec!["proc"]),
        ("/sys", vec!["tmpfs"]),
        ("/dev/pts", vec!["devpts"]),
        ("/dev/shm", vec!["tmpfs"]),
        ("/var/run", vec!["ramfs"]),
        ("/dev", vec![]),
        ("/tmp", vec![]),
    ] {
        assert_eq!(at(point), types, "{point}: {mounts}");
    }
}

#[test]
fn closed_descriptors_become_the_new_roots_console() {
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.install("mode=move\n");
        stage.dir("dev");
        // A device that nobody reads from: tests must not write to the machine's console.
        let path = b"dev/console".to_vec();
        stage.plant(&[Plant { path, what: What::Char(1, 3), meta: Default::default() }]);
    });
    let moved = run(prepared, &Setup { closed: true, ..Setup::default() });
    moved.check();
    let consoles = ["0 /dev/console", "1 /dev/console", "2 /dev/console"].map(str::to_owned);
    assert_eq!(descriptors(&moved.running), consoles.into());
    let console = format!("/proc/{}/fd/0", moved.running.pid().as_raw_pid());
    let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata(console).expect("the console"));
    assert_eq!(device, rustix::fs::fstat(&moved.root).expect("the new root").st_dev, "of the new root");
}

/// A multi-call program looks at its name. `init=` does not replace the image's own init, which reads it.
#[test]
fn the_images_own_init_is_called_as_this_program_was() {
    // It has the name /init again where repot was called by that one.
    for (own, executed) in [("/init", "/init"), ("/linuxrc", "/init.real")] {
        let prepared = prepare(Fs::Ramfs, |stage| {
            stage.install("mode=move\ncmdline=ignore\nchain=/init.real\ninit=/sbin/init\n");
            fs::copy(stage.path("sbin/init"), stage.path("init.real")).expect("a copy of the real init");
        });
        let argv = [own, "word"].map(str::to_owned).to_vec();
        let moved = run(prepared, &Setup { argv, ..Setup::default() });
        let argv = moved.running.proc("cmdline").escape_ascii().to_string();
        assert_eq!(argv, format!("{own}\\x00word\\x00"));
        let exe = fs::read_link(format!("/proc/{}/exe", moved.running.pid().as_raw_pid()));
        assert!(exe.is_ok_and(|exe| exe.ends_with(&executed[1..])), "the program is {executed}");
    }
}

#[test]
fn the_root_directory_has_the_mode_and_owner_of_the_options() {
    for (config, expected) in [
        ("mode=0750\nuid=5\ngid=6\n", (0o750, 5, 6)),
        ("uid=5\n", (0o755, 5, 0)),
        ("mode=02711\n", (0o2711, 0, 0)),
    ] {
        let prepared = prepare(Fs::Ramfs, |stage| stage.install(&format!("mode=move\n{config}")));
        let moved = run(prepared, &Setup::default());
        let root = &moved.after[&b""[..]];
        assert_eq!((root.mode, root.uid, root.gid), expected, "{config}");
    }
}
