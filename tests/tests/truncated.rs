//! Half a system is not booted: the markers in an archive, and a root that is full.
use std::fs;

use repot_snapshot::{Atime, Rules, difference, snapshot};
use repot_tests::rehome::{AFTER_BOOT, run};
use repot_tests::sandbox::{End, Setup};
use repot_tests::stage::{Prepared, Stage, prepare, prepare_with};
use repot_tests::trees::Fs;

/// Runs on what `build` creates to the end, and returns the output and how it ended.
fn outcome(prepared: &Prepared) -> (End, String) {
    let mut running = prepared.start(&Setup::default());
    let end = running.wait();
    (end, running.log())
}

fn with(config: &str, build: impl FnOnce(&Stage) + Send) -> Prepared {
    let config = format!("mode=move\nonerror=poweroff\n{config}");
    prepare(Fs::Tmpfs, |stage| {
        stage.install(&config);
        build(stage);
    })
}

fn assert_untouched(prepared: &Prepared) {
    let rules = Rules { atime: Atime::Ignored, gone: &[], ..AFTER_BOOT };
    let said = difference(&prepared.before, &snapshot(&prepared.view).expect("a snapshot"), rules);
    assert_eq!(said, "", "it was touched");
}

/// Each is refused, with what is missing and how to fix it, unless the user asked to continue.
#[test]
fn an_archive_without_its_end_is_not_booted() {
    let told = "the archive has no end marker";
    for mark in [None, Some(""), Some("format=1\nentries=7\nbytes=9\ninodes="), Some("format=2\nentries=7\n")]
    {
        let build = |stage: &Stage| {
            stage.file(".repot-begin", b"");
            if let Some(mark) = mark {
                stage.file(".repot-end", mark.as_bytes());
            }
        };
        let prepared = with("", build);
        let (end, log) = outcome(&prepared);
        assert_eq!(end, End::Killed(2), "{mark:?}: {log}");
        assert!(
            log.contains(told) && log.contains("MemTotal") && log.contains("rootfstype=ramfs"),
            "{mark:?}: {log}"
        );
        assert_untouched(&prepared);
        let (end, log) = outcome(&with("truncated=continue\n", build));
        assert_eq!(end, End::Init("ready".into()), "{mark:?}: {log}");
        assert!(log.contains(told), "{mark:?}: {log}");
    }
}

/// A malformed end marker does not count.
#[test]
fn a_malformed_end_marker_does_not_count() {
    type Spoil = fn(&Stage);
    let cases: [(&str, Spoil); 6] = [
        ("a directory", |stage| stage.dir(".repot-end")),
        ("a fifo", |stage| {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(stage.root(), ".repot-end", rustix::fs::FileType::Fifo, mode, 0)
                .expect("a fifo");
        }),
        ("a loop", |stage| stage.link(".repot-end", ".repot-end")),
        ("noise", |stage| stage.file(".repot-end", &[0xff; 4000])),
        ("100 MiB", |stage| {
            stage.file(".repot-end", b"format=1\n");
            let file = fs::File::options().write(true).open(stage.path(".repot-end")).expect("opened");
            file.set_len(100 << 20).expect("100 MiB");
        }),
        ("numbers without end", |stage| {
            stage.file(".repot-end", format!("format=1\nentries={}\n", "9".repeat(3000)).as_bytes());
        }),
    ];
    for (what, spoil) in cases {
        let prepared = with("", |stage| {
            stage.file(".repot-begin", b"");
            spoil(stage);
        });
        let (end, log) = outcome(&prepared);
        assert_eq!(end, End::Killed(2), "{what}: {log}");
        assert!(log.contains("the archive has no end"), "{what}: {log}");
        assert_untouched(&prepared);
    }
}

/// The marker is the last member, so it proves that everything before it was unpacked. Fewer entries or bytes
/// than it counts are what later segments replaced, or what a stage deleted.
#[test]
fn an_archive_with_its_end_is_booted() {
    for end in [
        "format=1\nentries=7\nbytes=30\ninodes=7\nlater=keys\n",
        "format=1\nentries=7\nbytes=99999999999\ninodes=7\n",
        "format=1\nentries=70000\nbytes=1\ninodes=7\n",
    ] {
        let prepared = with("", |stage| {
            stage.file(".repot-begin", b"");
            stage.file(".repot-end", end.as_bytes());
        });
        run(prepared, &Setup::default()).check();
    }
}

/// The kernel logs nothing when it runs out of inodes. A full root reveals it.
#[test]
fn a_full_root_is_not_booted() {
    for (options, told) in [([("size", "8m")], "are used"), ([("nr_inodes", "40")], "40 inodes")] {
        let prepared = prepare_with(Fs::Tmpfs, &options, |stage| {
            stage.install("mode=move\nonerror=poweroff\n");
            // To the last page, or the last inode.
            if told == "are used" {
                let _ = fs::write(stage.path("large"), vec![1; 9 << 20]);
            } else {
                for number in 0..100 {
                    let _ = fs::write(stage.path(&format!("file {number}")), b"");
                }
            }
        });
        let (end, log) = outcome(&prepared);
        assert_eq!(end, End::Killed(2), "{log}");
        assert!(log.contains(told) && log.contains("initramfs_options"), "{log}");
        assert_untouched(&prepared);
    }
}

/// A path in the list may be longer than the kernel takes at once.
#[test]
fn attributes_from_the_list_at_any_depth() {
    let name = "n".repeat(255);
    let deep = [name.as_str(); 40].join("/");
    // The next one begins exactly at the limit of a path.
    let edge = format!("{}/{}/x/y", [name.as_str(); 15].join("/"), "m".repeat(4095 - 15 * 256));
    let list = format!(
        "# file: {deep}\nuser.note=0x64656570\n\n# file: {edge}\nuser.note=0x65646765\n\n\
         # file: {deep}/nowhere\nuser.x=0x\n\n# file: {}\nuser.x=0x\n",
        "l".repeat(5000)
    );
    let moved = run(
        prepare(Fs::Ramfs, |stage| {
            stage.install("mode=move\n");
            for path in [&deep, &edge] {
                let mut at = stage.root().try_clone_to_owned().expect("the root");
                for name in path.split('/') {
                    let made = rustix::fs::mkdirat(&at, name, rustix::fs::Mode::RWXU);
                    assert!(matches!(made, Ok(()) | Err(rustix::io::Errno::EXIST)), "{made:?}");
                    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
                    at = rustix::fs::openat(&at, name, flags, rustix::fs::Mode::empty()).expect("made");
                }
            }
            stage.file(".repot-xattrs", list.as_bytes());
        }),
        &Setup::default(),
    );
    for (path, value) in [(&deep, "deep"), (&edge, "edge")] {
        let found = moved.after[path.as_bytes()].xattrs.values().next().cloned();
        assert_eq!(found.as_deref(), Some(value.as_bytes()), "{}", moved.running.log());
    }
    let log = moved.running.log();
    assert!(log.contains("nowhere\": ENOENT") && log.contains("ENAMETOOLONG"), "{log}");
}

/// Attributes that a cpio archive cannot carry come from a list in the tree, even if the old root could not
/// have had them.
#[test]
fn attributes_from_the_list_are_on_the_new_tree() {
    const LIST: &str = "# file: .\nuser.note=0x68656c6c6f\n\n# file: bin/ping\n\
        security.capability=0x0100000200200000000000000000000000000000\n\n# file: nowhere\nuser.x=0x\n\n\
        # file: link\ntrusted.on=0x6c\n\n# file: ../outside\nuser.x=0x\nnonsense\n";
    let moved = run(
        prepare(Fs::Ramfs, |stage| {
            stage.install("mode=move\n");
            stage.file("bin/ping", b"a program");
            stage.link("link", "bin/ping");
            stage.file(".repot-xattrs", LIST.as_bytes());
        }),
        &Setup::default(),
    );
    let xattr = |path: &str, name: &str| {
        let found =
            moved.after[path.as_bytes()].xattrs.iter().find(|(key, _)| key.as_slice() == name.as_bytes());
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(xattr("", "user.note").as_deref(), Some(&b"hello"[..]));
    assert_eq!(xattr("bin/ping", "security.capability").map(|value| value.len()), Some(20));
    assert_eq!(xattr("link", "trusted.on").as_deref(), Some(&b"l"[..]));
    let log = moved.running.log();
    assert!(log.contains("nowhere") && log.contains("../outside") && log.contains("xattrs:15"), "{log}");
}
