//! Bad input: impossible requests are refused with a reason before anything changes; malformed ones are
//! logged and ignored.
use std::fs;
use std::os::unix::fs::PermissionsExt;

use repot_snapshot::{Atime, Rules, difference, snapshot};
use repot_tests::programs;
use repot_tests::rehome::AFTER_BOOT;
use repot_tests::sandbox::{End, Running, Setup};
use repot_tests::stage::{Prepared, Stage, prepare};
use repot_tests::trees::{Fs, one_of_each};

/// Runs `/init` on a small tree to any end.
fn end_of(build: impl FnOnce(&Stage) + Send, setup: &Setup) -> (Prepared, Running, End) {
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.install("mode=move\n");
        stage.plant(&one_of_each());
        build(stage);
    });
    let mut running = prepared.start(setup);
    let end = running.wait();
    (prepared, running, end)
}

fn assert_untouched(prepared: &Prepared) {
    // Inspecting the tree may change access times, and nothing else.
    let rules = Rules { atime: Atime::Ignored, gone: &[], ..AFTER_BOOT };
    let said = difference(&prepared.before, &snapshot(&prepared.view).expect("a snapshot"), rules);
    assert_eq!(said, "", "it was touched");
}

#[test]
fn not_process_1_exits_with_2_and_one_sentence_and_touches_nothing() {
    let setup = Setup {
        program: "/parent".into(),
        argv: ["parent", "/init", "some", "words"].map(str::to_owned).into(),
        ..Setup::default()
    };
    let (prepared, running, end) = end_of(|stage| stage.program("parent", programs::helper()), &setup);
    assert_eq!(end, End::Init("exit status: 2".into()), "{}", running.log());
    let log = running.log();
    assert!(log.contains("not running as PID 1") && log.lines().count() == 1, "{log}");
    assert_untouched(&prepared);
}

/// On an ordinary machine, and after a first move: the root is not the initial one, so its init is executed
/// in place.
#[test]
fn a_root_that_is_not_the_initial_one_is_left_alone() {
    for config in ["", "mode=auto\n", "mode=stay\n"] {
        let (prepared, running, end) =
            end_of(|stage| stage.file("etc/repot.conf", config.as_bytes()), &Setup::default());
        assert_eq!(end, End::Init("ready".into()), "{}", running.log());
        assert_eq!(prepared.mounts["/"][0].what.device, running.mounts()["/"][0].what.device);
        assert!(running.log().contains("stay"), "{}", running.log());
        assert_untouched(&prepared);
    }
}

#[test]
fn without_an_init_every_candidate_is_named_with_its_reason() {
    let build = |stage: &Stage| {
        stage.file("etc/repot.conf", b"mode=move\nonerror=poweroff\ninit=/no/such\n");
        fs::remove_file(stage.path("sbin/init")).expect("removed");
        stage.dir("sbin/init");
        stage.file("etc/init", b"not executable");
        stage.dir("bin");
        stage.link("bin/init", "init");
        stage.file("bin/sh", b"#!/bin/missing\n");
        fs::set_permissions(stage.path("bin/sh"), fs::Permissions::from_mode(0o755)).expect("executable");
    };
    let (prepared, running, end) = end_of(build, &Setup::default());
    let log = running.log();
    // In a PID namespace, power-off is SIGINT.
    assert_eq!(end, End::Killed(2), "{log}");
    let reasons = [
        ("/no/such", "does not exist"),
        ("/sbin/init", "is a directory"),
        ("/etc/init", "is not executable"),
        ("/bin/init", "ELOOP"),
        ("/bin/sh", "/bin/missing"),
    ];
    for (candidate, reason) in reasons {
        let told = log.split(';').any(|part| part.contains(candidate) && part.contains(reason));
        assert!(told, "{candidate}: {reason}: {log}");
    }
    assert_untouched(&prepared);
}

/// Each kind of init that is not executable is skipped for the next one, before anything is moved.
#[test]
fn an_init_that_is_not_executable_is_skipped() {
    type Spoil = fn(&Stage);
    let cases: [(&str, Spoil); 9] = [
        ("is a directory", |stage| stage.dir("odd")),
        ("is a fifo", |stage| {
            rustix::fs::mknodat(
                stage.root(),
                "odd",
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o755),
                0,
            )
            .expect("a fifo");
        }),
        ("does not exist", |stage| stage.link("odd", "nowhere")),
        ("ELOOP", |stage| stage.link("odd", "odd")),
        ("is not executable", |stage| stage.file("odd", b"\x7fELF")),
        ("neither an ELF program nor a script", |stage| executable(stage, b"")),
        ("is built for another architecture", |stage| {
            let mut elf = fs::read(programs::helper()).expect("the helper");
            // e_machine: a number that no machine has.
            elf[18..20].copy_from_slice(&[0xff, 0xfe]);
            executable(stage, &elf);
        }),
        ("needs \"/bin/missing\"", |stage| executable(stage, b"#! /bin/missing -x\n")),
        ("is repot itself", |stage| stage.link("odd", "init")),
    ];
    for (reason, spoil) in cases {
        let build = |stage: &Stage| {
            stage.file("etc/repot.conf", b"mode=move\ninit=/odd\n");
            spoil(stage);
        };
        let (prepared, running, end) = end_of(build, &Setup::default());
        let log = running.log();
        assert_eq!(end, End::Init("ready".into()), "{reason}: {log}");
        assert!(log.contains("/odd") && log.contains(reason), "{reason}: {log}");
        let rules = Rules { atime: Atime::Ignored, ..AFTER_BOOT };
        let now = snapshot(running.root()).expect("a snapshot");
        assert_eq!(difference(&prepared.before, &now, rules), "", "{reason}");
    }
}

fn executable(stage: &Stage, content: &[u8]) {
    stage.file("odd", content);
    fs::set_permissions(stage.path("odd"), fs::Permissions::from_mode(0o755)).expect("executable");
}

#[test]
fn configuration_errors_are_logged_and_the_boot_continues() {
    let cases: [(&[u8], &[&str]); 6] = [
        (b"mode=move\ncolour=red\n", &["unknown key \"colour\"", "repot.conf:2"]),
        (b"mode=sideways\nmode=move\n", &["\"sideways\"", "repot.conf:1"]),
        (b"size=lots\nnr_inodes=-1\nthreads=0\nmode=move", &["lots", "-1", "threads"]),
        (b"\xff\xfe=\x00\nmode=move\n", &["repot.conf:1"]),
        (b"mode=move\n\n# a comment\n   \nonerror\n", &["onerror", "repot.conf:5"]),
        (b"mode=move\nmpol=nonsense\nhuge=sometimes\n", &["mpol", "huge"]),
    ];
    for (config, told) in cases {
        let build = |stage: &Stage| stage.file("etc/repot.conf", config);
        let (prepared, running, end) = end_of(build, &Setup::default());
        let (log, shown) = (running.log(), config.escape_ascii());
        assert_eq!(end, End::Init("ready".into()), "{shown}: {log}");
        for word in told {
            assert!(log.contains(word), "{shown}: {word}: {log}");
        }
        assert_ne!(
            prepared.mounts["/"][0].what.device,
            running.mounts()["/"][0].what.device,
            "{shown}: {log}"
        );
    }
}

#[test]
fn an_unreadable_configuration_is_logged_and_the_boot_continues() {
    type Spoil = fn(&Stage);
    let cases: [(&str, Spoil); 4] = [
        ("EISDIR", |stage| stage.dir("etc/repot.conf")),
        ("ELOOP", |stage| stage.link("etc/repot.conf", "repot.conf")),
        ("EFBIG", |stage| {
            stage.file("etc/repot.conf", b"");
            let file = fs::File::options().write(true).open(stage.path("etc/repot.conf")).expect("opened");
            file.set_len(100 << 20).expect("100 MiB");
        }),
        // Nobody writes to it: reading must neither wait nor fail the boot.
        ("stay", |stage| {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(stage.root(), "etc/repot.conf", rustix::fs::FileType::Fifo, mode, 0)
                .expect("a fifo");
        }),
    ];
    for (told, spoil) in cases {
        let build = |stage: &Stage| {
            fs::remove_file(stage.path("etc/repot.conf")).expect("removed");
            spoil(stage);
        };
        let (prepared, running, end) = end_of(build, &Setup::default());
        assert_eq!(end, End::Init("ready".into()), "{told}: {}", running.log());
        assert!(running.log().contains(told), "{told}: {}", running.log());
        assert_untouched(&prepared);
    }
}

#[test]
fn onerror_can_be_chosen() {
    // In a PID namespace, a reboot is SIGHUP, and power-off and halt are SIGINT.
    for (onerror, ends) in
        [("reboot", End::Killed(1)), ("poweroff", End::Killed(2)), ("halt", End::Killed(2))]
    {
        let build = |stage: &Stage| {
            stage.file("etc/repot.conf", format!("mode=move\nonerror={onerror}\n").as_bytes());
            fs::remove_file(stage.path("sbin/init")).expect("removed");
        };
        let (prepared, running, end) = end_of(build, &Setup::default());
        assert_eq!(end, ends, "{onerror}: {}", running.log());
        assert_untouched(&prepared);
    }
    let build = |stage: &Stage| {
        stage.file("etc/repot.conf", b"mode=move\nonerror=shell\n");
        fs::remove_file(stage.path("sbin/init")).expect("removed");
        // A name that is not in the kernel's own list of inits.
        stage.program("bin/bash", programs::helper());
    };
    let (_, running, end) = end_of(build, &Setup::default());
    assert_eq!(end, End::Init("ready".into()), "{}", running.log());
    assert_eq!(running.proc_link("exe"), "/bin/bash");
}
