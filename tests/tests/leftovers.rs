//! What repot brings into the root is gone when the real init runs; attributes arrive without a move too.
use std::os::unix::fs::PermissionsExt;

use std::sync::atomic::{AtomicU32, Ordering};

use repot_snapshot::{Snapshot, snapshot};
use repot_tests::intercept::{Call, Calls, Verdict};
use repot_tests::rehome::{Rehomed, run};
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::stage::{Prepared, Stage, prepare};
use repot_tests::trees::Fs;
use rustix::io::Errno;

/// What `repot pack` adds, with a manifest for `bin/ping`: an attribute, and an ACL whose mode in the archive
/// is without the mask's rights.
fn packed(stage: &Stage, config: &str) {
    stage.install(config);
    stage.file(".repot-begin", b"");
    stage.file(".repot-end", b"format=1\nentries=1\nbytes=1\ninodes=1\n");
    stage.file("bin/ping", b"ping");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(stage.path("bin/ping"), mode).expect("mode");
    let acl = "0200000001000600ffffffff02000400feff000004000000ffffffff10000400ffffffff20000000ffffffff";
    let list = format!("# file: bin/ping\ntrusted.x=\"given\"\nsystem.posix_acl_access=0x{acl}\n");
    stage.file(".repot-xattrs-00000001-x", list.as_bytes());
}

/// The names in the root that are repot's, without `.repot-`.
fn ours(tree: &Snapshot) -> Vec<String> {
    let names = tree.keys().map(|path| String::from_utf8_lossy(path).into_owned());
    let ours = names.filter(|name| name.starts_with(".repot-") || name.starts_with("init"));
    ours.map(|name| name.trim_start_matches(".repot-").to_owned()).collect()
}

/// The attribute and the mode of `bin/ping`.
fn ping(moved: &Rehomed) -> (Option<&[u8]>, u32) {
    let entry = &moved.after[&b"bin/ping"[..]];
    let value = entry.xattrs.iter().find(|(name, _)| name.as_slice() == b"trusted.x");
    (value.map(|(_, value)| value.as_slice()), entry.mode & 0o7777)
}

#[test]
fn a_moved_root_is_the_one_that_was_packed() {
    for fs in Fs::ALL {
        for (keep, left) in [
            ("", &[][..]),
            ("keep=init\n", &["init"]),
            ("keep=all\n", &["begin", "end", "modules", "modules/zram.ko", "xattrs-00000001-x", "init"]),
        ] {
            let prepared = prepare(fs, |stage| {
                packed(stage, &format!("mode=move\n{keep}"));
                stage.dir(".repot-modules");
                stage.file(".repot-modules/zram.ko", b"a module");
            });
            let mtime = prepared.before[&b""[..]].mtime;
            let moved = run(prepared, &Setup::default());
            assert_eq!(ours(&moved.after), left, "{fs:?} {keep} {}", moved.running.log());
            assert_eq!(ping(&moved), (Some(&b"given"[..]), 0o640), "{fs:?} {keep}");
            assert_eq!(moved.after[&b""[..]].mtime, mtime, "the time of the root");
        }
    }
}

/// A root in a namespace is not the initial one, so nothing is removed. What is in memory gets its
/// attributes.
#[test]
fn attributes_arrive_where_the_root_stays() {
    for mode in ["bind", "stay", "auto"] {
        let tmpfs =
            run(prepare(Fs::Tmpfs, |stage| packed(stage, &format!("mode={mode}\n"))), &Setup::default());
        assert_eq!(ping(&tmpfs), (Some(&b"given"[..]), 0o640), "{mode}: {}", tmpfs.running.log());
        assert_eq!(ours(&tmpfs.after), ["begin", "end", "xattrs-00000001-x", "init"], "{mode}");

        let ramfs =
            run(prepare(Fs::Ramfs, |stage| packed(stage, &format!("mode={mode}\n"))), &Setup::default());
        assert_eq!(ping(&ramfs), (None, 0o600), "{mode}");
        let warning = "extended attributes of 1 entries skipped: / stays a ramfs, which has none";
        assert!(ramfs.running.log().contains(warning), "{mode}: {}", ramfs.running.log());
    }
}

/// Runs with decisions about one call of the init.
fn decided(prepared: Prepared, number: i64, decide: impl Fn(&Call) -> Verdict) -> (Snapshot, String) {
    let mut running = prepared.start(&Setup { calls: Calls::These(vec![number]), ..Setup::default() });
    let decide = |call: &Call| if call.number == number { decide(call) } else { Verdict::Continue };
    let end = running.wait_until(DEADLINE, None, &mut { decide });
    assert_eq!(end, End::Init("ready".into()), "{}", running.log());
    (snapshot(running.root()).expect("a snapshot"), running.log())
}

#[test]
fn a_move_that_fails_binds_and_the_attributes_arrive() {
    for (fs, expected) in [(Fs::Tmpfs, 0o640), (Fs::Ramfs, 0o600)] {
        let prepared = prepare(fs, |stage| packed(stage, "mode=move\n"));
        let (after, log) = decided(prepared, libc::SYS_mkdirat, |_| Verdict::Fail(Errno::NOSPC));
        assert!(log.contains("bind: move failed"), "{log}");
        assert_eq!(after[&b"bin/ping"[..]].mode & 0o7777, expected, "{log}");
        assert_eq!(ours(&after), ["begin", "end", "xattrs-00000001-x", "init"], "{log}");
    }
}

/// A file that cannot be removed is a warning, and the real init runs.
#[test]
fn a_file_that_cannot_be_removed_stays() {
    for name in [&b".repot-begin"[..], b".repot-end", b".repot-xattrs-00000001-x", b"/init"] {
        let prepared = prepare(Fs::Ramfs, |stage| packed(stage, "mode=move\n"));
        // The files of the old root are removed first, under the same names.
        let seen = AtomicU32::new(u32::from(name == b"/init"));
        let fail = |call: &Call| match call.text(1) == name && seen.fetch_add(1, Ordering::Relaxed) > 0 {
            true => Verdict::Fail(Errno::BUSY),
            false => Verdict::Continue,
        };
        let (after, log) = decided(prepared, libc::SYS_unlinkat, fail);
        assert!(log.contains("EBUSY") && log.contains("a file of repot stays in /"), "{log}");
        let name = String::from_utf8_lossy(name).replace(".repot-", "").replace('/', "");
        assert!(ours(&after).contains(&name), "{name}: {log}");
    }
}

#[test]
fn the_image_s_own_init_gets_its_name_back() {
    for fs in Fs::ALL {
        for keep in ["", "keep=init\n"] {
            let prepared = prepare(fs, |stage| {
                packed(stage, &format!("mode=move\nchain=/init.real\n{keep}"));
                std::fs::rename(stage.path("sbin/init"), stage.path("init.real")).expect("renamed");
            });
            let moved = run(prepared, &Setup::default());
            let log = moved.running.log();
            let (names, path) = if keep.is_empty() {
                (&["init"][..], "executing \"/init\"")
            } else {
                (&["init", "init.real"][..], "executing \"/init.real\"")
            };
            assert_eq!(ours(&moved.after), names, "{log}");
            assert!(log.contains(path), "{log}");
            let size = std::fs::metadata(repot_tests::programs::helper()).expect("the helper").len();
            assert_eq!(moved.after[names.last().expect("a name").as_bytes()].size, size);
        }
    }
}

/// What was counted before the move is what has arrived in the end: bytes against bytes, not against pages.
#[test]
fn the_progress_reaches_its_total() {
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            packed(stage, "mode=move\nlog=debug\n");
            (0..300).for_each(|number| stage.file(&format!("many/{number}"), b"x"));
            stage.file("large", &vec![7; (3 << 20) + 5]);
            std::fs::hard_link(stage.path("large"), stage.path("linked")).expect("linked");
            let sparse = std::fs::File::create(stage.path("sparse")).expect("a file");
            std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (5 << 20) + 7).expect("written");
        });
        let moved = run(prepared, &Setup::default());
        let log = moved.running.log();
        let line = |start: &str| log.lines().find(|line| line.contains(start)).unwrap_or_default().to_owned();
        let (counted, arrived) = (line("repot: facts:"), line("repot: move:"));
        let number = |line: &str, before: &str| {
            let end = line.find(before).unwrap_or_else(|| panic!("{before}: {log}"));
            line[..end].rsplit([';', ',']).next().unwrap_or_default().trim().to_owned()
        };
        let entries = [number(&counted, " entries:"), number(&arrived, " entries, ")];
        assert_eq!(entries[0], entries[1], "{log}");
        let bytes = number(&counted, " of files,");
        assert!(arrived.contains(&format!(" entries, {bytes}, ")), "{log}");
    }
}

/// Only the running program is ours.
#[test]
fn an_init_of_others_stays() {
    let prepared = prepare(Fs::Ramfs, |stage| {
        stage.install("mode=move\n");
        std::fs::rename(stage.path("init"), stage.path("repot")).expect("renamed");
        stage.file("init", b"#!/bin/sh\nexec /repot\n");
    });
    let setup = Setup { program: "/repot".into(), ..Setup::default() };
    let moved = run(prepared, &setup);
    assert_eq!(ours(&moved.after), ["init"], "{}", moved.running.log());
    assert!(moved.after.contains_key(&b"repot"[..]));
}

/// What an interrupted image lacks must stay visible to a later run.
#[test]
fn the_markers_of_a_truncated_image_stay() {
    let prepared = prepare(Fs::Ramfs, |stage| {
        packed(stage, "mode=move\ntruncated=continue\n");
        std::fs::remove_file(stage.path(".repot-end")).expect("removed");
    });
    let moved = run(prepared, &Setup::default());
    assert_eq!(ours(&moved.after), ["begin"], "{}", moved.running.log());
}
