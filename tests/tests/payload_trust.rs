//! What a digest vouches for: with `payload=`, nothing beside the payload gets into the new root.
use std::fs;
use std::os::unix::fs::PermissionsExt;

use repot::display::Hex;
use repot_tests::payload_image::runs::{MOVE, QUICK_END, assert_untouched, with_faults};
use repot_tests::payload_image::{Packed, chunks, edit, of_several_chunks, pack, unpacked};
use repot_tests::programs;
use repot_tests::rehome::run;
use repot_tests::sandbox::{End, Setup};
use repot_tests::stage::{Prepared, Stage, prepare};
use repot_tests::trees::{Fs, one_of_each};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;

const CONFIG: &str = "mode=move\nonerror=poweroff\n";

fn packed() -> Packed {
    pack(&[MOVE, QUICK_END], |stage| {
        stage.plant(&one_of_each());
        of_several_chunks(stage);
        stage.file("root/kept", b"kept");
    })
}

/// The line of the configuration that requires the digest of an image.
fn digest(packed: &Packed) -> String {
    format!("payload=sha256:{}\n", Hex(&repot_cli::payload::digest(&packed.index())))
}

fn staged(packed: &Packed, config: &str, change: impl FnOnce(&Stage) + Send) -> Prepared {
    unpacked(Fs::Ramfs, &[], &[&packed.image], |stage| {
        stage.file("etc/repot.conf", config.as_bytes());
        change(stage);
    })
}

fn node(stage: &Stage, path: &str, kind: FileType, device: (u32, u32)) {
    let at = stage.path(path);
    let _ = fs::remove_file(&at);
    let device = makedev(device.0, device.1);
    mknodat(CWD, &at, kind, Mode::from_raw_mode(0o600), device).expect("a node");
}

fn set_user_id(stage: &Stage, path: &str) {
    fs::set_permissions(stage.path(path), fs::Permissions::from_mode(0o4755)).expect("mode");
}

/// Each is one entry that the digest does not cover, and its path in the message.
#[test]
fn nothing_beside_the_payload_gets_in() {
    type Add = fn(&Stage);
    let cases: &[(&str, Add)] = &[
        ("sbin", |stage| stage.program("sbin/init", programs::helper())),
        ("lib", |stage| stage.dir("lib")),
        ("bin", |stage| stage.link("bin", "usr/bin")),
        (".repot-xattrs", |stage| stage.file(".repot-xattrs", b"# file: sbin/init\nuser.x=0x00\n")),
        ("etc/shadow", |stage| stage.file("etc/shadow", b"root::0:0:::::\n")),
        ("etc/repot.conf.d", |stage| stage.dir("etc/repot.conf.d")),
        ("root/.profile", |stage| stage.file("root/.profile", b"evil\n")),
        ("dev/mem", |stage| node(stage, "dev/mem", FileType::CharacterDevice, (1, 1))),
        ("dev/console", |stage| node(stage, "dev/console", FileType::CharacterDevice, (1, 1))),
        ("dev/console", |stage| node(stage, "dev/console", FileType::BlockDevice, (5, 1))),
        ("dev/console", |stage| {
            fs::remove_file(stage.path("dev/console")).expect("removed");
            stage.file("dev/console", b"text");
        }),
        ("etc/repot.conf", |stage| set_user_id(stage, "etc/repot.conf")),
        (".repot-end", |stage| set_user_id(stage, ".repot-end")),
        (".repot-begin", |stage| {
            let _ = fs::remove_file(stage.path(".repot-begin"));
            stage.dir(".repot-begin");
        }),
        ("usr", |stage| {
            stage.dir("usr");
            fs::hard_link(stage.path("init"), stage.path("usr/program")).expect("linked");
        }),
        ("init", |stage| fs::hard_link(stage.path("init"), stage.path("other")).expect("linked")),
        ("etc", |stage| {
            fs::rename(stage.path("etc"), stage.path("root/etc")).expect("renamed");
            stage.link("etc", "root/etc");
        }),
    ];
    let packed = packed();
    let config = format!("{CONFIG}{}", digest(&packed));
    for (path, add) in cases {
        let prepared = staged(&packed, &config, add);
        let mut running = prepared.start(&Setup::default());
        let end = running.wait();
        let log = running.log();
        assert_eq!(end, End::Killed(2), "{path}: {log}");
        assert!(
            log.contains("payload= does not cover entries beside the payload: ")
                && log.contains(&format!("\"{path}\"")),
            "{path}: {log}"
        );
        assert_untouched(&prepared);
    }
}

/// The modules of the index are covered: as they were packed, and no others.
#[test]
fn the_modules_that_were_packed_are_covered() {
    let kernels = tempfile::tempdir().expect("a folder");
    let folder = kernels.path().join("6.12.1");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("modules.dep"), "zram.ko:\n").expect("a file");
    fs::write(folder.join("zram.ko"), "a module").expect("a file");
    let option = format!("--modules={}", folder.display());
    let packed = pack(&[MOVE, QUICK_END, &option], |stage| stage.plant(&one_of_each()));
    let config = format!("{CONFIG}{}", digest(&packed));
    run(staged(&packed, &config, |_| ()), &Setup::default()).check_moved();
    type Change = fn(&Stage);
    let cases: &[(&str, Change)] = &[
        ("/6.12.1/zram.ko", |stage| stage.file(".repot-modules/6.12.1/zram.ko", b"another module")),
        ("/6.12.1/zram.ko", |stage| set_user_id(stage, ".repot-modules/6.12.1/zram.ko")),
        ("/6.12.1/zram.ko", |stage| {
            let (from, to) = (".repot-modules/6.12.1/zram.ko", ".repot-modules/module");
            fs::rename(stage.path(from), stage.path(to)).expect("renamed");
            stage.link(from, "../module");
        }),
        ("/6.12.1/zram.order", |stage| stage.file(".repot-modules/6.12.1/zram.order", b"evil.ko\nzram.ko\n")),
        ("/6.12.1/evil.ko", |stage| stage.file(".repot-modules/6.12.1/evil.ko", b"a module")),
        ("/7.0.0/zram.ko", |stage| {
            stage.dir(".repot-modules/7.0.0");
            stage.file(".repot-modules/7.0.0/zram.ko", b"a module");
        }),
        ("/file", |stage| stage.file(".repot-modules/file", b"")),
    ];
    for (path, change) in cases {
        let prepared = staged(&packed, &config, change);
        let mut running = prepared.start(&Setup::default());
        let end = running.wait();
        let log = running.log();
        assert_eq!(end, End::Killed(2), "{path}: {log}");
        assert!(log.contains(&format!("\".repot-modules{path}\"")), "{path}: {log}");
        assert_untouched(&prepared);
    }
}

/// What every image has is covered, and what is allowed by name overrides.
#[test]
fn what_the_digest_covers_is_unpacked() {
    let packed = packed();
    let digest = digest(&packed);
    let rehomed = run(staged(&packed, &format!("{CONFIG}{digest}"), |_| ()), &Setup::default());
    rehomed.check_moved();
    rehomed.check_old_root_is_empty();
    // An unpacked container has an empty file in its place.
    let empty = |stage: &Stage| {
        fs::remove_file(stage.path("dev/console")).expect("removed");
        stage.file("dev/console", b"");
    };
    run(staged(&packed, &format!("{CONFIG}{digest}"), empty), &Setup::default()).check_moved();
    let config = format!("{CONFIG}{digest}payload.overlay=yes\n");
    let add = |stage: &Stage| stage.file("srv/more", b"more");
    let rehomed = run(staged(&packed, &config, add), &Setup::default());
    rehomed.check_moved();
    assert!(rehomed.after.contains_key(&b"srv/more"[..]));
    // Without a digest, an overlay needs no permission.
    run(staged(&packed, CONFIG, add), &Setup::default()).check_moved();
}

/// Nothing in the directory of the payload is unknown, and a chunk is a file with one name.
#[test]
fn the_directory_of_the_payload_holds_the_payload_alone() {
    type Change = fn(&Stage);
    let cases: &[(&str, Change)] = &[
        ("not in the index", |stage| stage.file(".repot-payload/index2", b"format=1\n")),
        ("not in the index", |stage| stage.dir(".repot-payload/999999")),
        ("not in the index", |stage| stage.file(".repot-payload/0000001", b"")),
        ("chunk has hard links", |stage| {
            fs::hard_link(&chunks(stage)[1], stage.path(".repot-payload/of-index")).expect("linked");
            fs::rename(stage.path(".repot-payload/of-index"), stage.path("etc/of-index")).expect("renamed");
        }),
        ("ELOOP", |stage| {
            let chunk = &chunks(stage)[1];
            fs::rename(chunk, stage.path("moved")).expect("renamed");
            std::os::unix::fs::symlink("/moved", chunk).expect("a link");
        }),
        ("not a regular file", |stage| {
            let chunk = &chunks(stage)[1];
            fs::remove_file(chunk).expect("removed");
            fs::create_dir(chunk).expect("a directory");
        }),
        ("ELOOP", |stage| {
            fs::rename(stage.path(".repot-payload/index"), stage.path("moved")).expect("renamed");
            stage.link(".repot-payload/index", "/moved");
        }),
        ("EISDIR", |stage| {
            fs::remove_file(stage.path(".repot-payload/index")).expect("removed");
            stage.dir(".repot-payload/index");
        }),
        ("ELOOP", |stage| {
            fs::rename(stage.path(".repot-payload"), stage.path("moved")).expect("renamed");
            stage.link(".repot-payload", "moved");
        }),
        ("SHA-256", |stage| edit(&chunks(stage)[2], |bytes| bytes[100] ^= 1)),
    ];
    let packed = packed();
    let config = format!("{CONFIG}{}payload.overlay=yes\n", digest(&packed));
    for (told, change) in cases {
        let prepared = staged(&packed, &config, change);
        let mut running = prepared.start(&Setup::default());
        let end = running.wait();
        let log = running.log();
        assert_eq!(end, End::Killed(2), "{told}: {log}");
        assert!(log.contains(told), "{told}: {log}");
        assert_untouched(&prepared);
    }
}

/// A shell beside the payload is not covered either.
#[test]
fn no_shell_runs_beside_a_payload_that_is_refused() {
    let packed = packed();
    let config = format!("mode=move\nonerror=shell\n{}", digest(&packed));
    let prepared = staged(&packed, &config, |stage| stage.program("bin/sh", programs::helper()));
    let setup = Setup::default();
    let mut running = prepared.start(&setup);
    let end =
        running.wait_until(std::time::Duration::from_secs(20), Some("the machine stays up"), &mut |_| {
            repot_tests::intercept::Verdict::Continue
        });
    let log = running.log();
    assert!(!matches!(end, End::Init(_)), "{log}");
    assert!(log.contains("no shell is started (onerror=shell), because payload= is set"), "{log}");
}

/// If the system cannot be inspected, nothing is executed that the digest does not cover. In a container,
/// where mounting is not permitted, the digest of the machine does not apply.
#[test]
fn nothing_is_executed_that_could_not_be_inspected() {
    let config = format!("{CONFIG}payload=sha256:{}\n", "0".repeat(64));
    for (error, executed) in [(Errno::NOSYS, false), (Errno::NOMEM, false), (Errno::PERM, true)] {
        let prepared = prepare(Fs::Tmpfs, |stage| stage.install(&config));
        let (end, running) = with_faults(&prepared, &[libc::SYS_fsopen], |_| Some(error));
        let log = running.log();
        assert_eq!(end, if executed { End::Init("ready".into()) } else { End::Killed(2) }, "{error}: {log}");
        assert_eq!(log.contains("payload= is set, and nothing was verified"), !executed, "{error}: {log}");
    }
}
