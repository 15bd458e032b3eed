//! Entries of the initramfs whose names have another type in the payload.
use std::fs::{self, File};
use std::os::fd::AsFd;

use repot_snapshot::Kind;
use repot_tests::payload_image::runs::{MOVE, QUICK_END};
use repot_tests::payload_image::{pack, unpacked};
use repot_tests::rehome::{Rehomed, run};
use repot_tests::sandbox::Setup;
use repot_tests::stage::Stage;
use repot_tests::trees::Fs;
use rustix::fs::{Mode, OFlags, openat};

/// Runs on each file system: the payload that `packed` makes, with what `add` puts beside it.
fn each(packed: fn(&Stage), add: fn(&Stage), check: impl Fn(&Rehomed)) {
    let packed = pack(&[MOVE, QUICK_END], packed);
    for fs in Fs::ALL {
        let rehomed = run(unpacked(fs, &[], &[&packed.image], add), &Setup::default());
        check(&rehomed);
        rehomed.check_moved();
        rehomed.check_old_root_is_empty();
    }
}

fn text(rehomed: &Rehomed, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
    let file = openat(rehomed.running.root().as_fd(), path, flags, Mode::empty()).expect("the file");
    std::io::read_to_string(File::from(file)).expect("text")
}

fn is_link(rehomed: &Rehomed, path: &str) -> bool {
    rehomed.after[path.as_bytes()].kind == Kind::Symlink
}

/// A directory goes where the link of the payload leads: relative, absolute, over other links, and never out
/// of the root.
#[test]
fn a_directory_merges_into_a_link_to_a_directory() {
    each(
        |stage| {
            stage.file("usr/bin/tool", b"of the payload");
            stage.file("usr/bin/other", b"stays");
            stage.file("usr/lib/deep/er/file", b"stays too");
            stage.link("bin", "usr/bin");
            stage.link("lib", "/usr/lib");
            stage.link("lib64", "lib");
            stage.link("up", "../../../../srv/up");
            stage.dir("srv/up");
            stage.link("srv/link", "../usr/./bin/../bin");
        },
        |stage| {
            stage.file("bin/tool", b"of the initramfs");
            stage.file("bin/more/below", b"below");
            stage.file("lib/deep/er/new", b"new");
            stage.file("lib64/deep/er/newer", b"newer");
            stage.file("up/here", b"here");
            stage.file("srv/link/through", b"through");
            fs::hard_link(stage.path("bin/tool"), stage.path("bin/linked")).expect("linked");
        },
        |rehomed| {
            for path in ["bin", "lib", "lib64", "up", "srv/link"] {
                assert!(is_link(rehomed, path), "{path}");
            }
            assert_eq!(text(rehomed, "usr/bin/tool"), "of the initramfs");
            assert_eq!(text(rehomed, "usr/bin/linked"), "of the initramfs");
            assert_eq!(rehomed.after[&b"usr/bin/tool"[..]].nlink, 2);
            assert_eq!(text(rehomed, "usr/bin/other"), "stays");
            assert_eq!(text(rehomed, "usr/bin/more/below"), "below");
            assert_eq!(text(rehomed, "usr/bin/through"), "through");
            assert_eq!(text(rehomed, "usr/lib/deep/er/file"), "stays too");
            assert_eq!(text(rehomed, "usr/lib/deep/er/new"), "new");
            assert_eq!(text(rehomed, "usr/lib/deep/er/newer"), "newer");
            assert_eq!(text(rehomed, "srv/up/here"), "here");
            let log = rehomed.running.log();
            assert!(log.contains("\"bin\" of the initramfs was merged into \"usr/bin\""), "{log}");
        },
    );
}

/// If the initramfs has the directory under both names, its entry at the real path counts.
#[test]
fn the_real_path_precedes_the_path_through_a_link() {
    each(
        |stage| {
            stage.file("usr/bin/tool", b"of the payload");
            stage.link("bin", "usr/bin");
        },
        |stage| {
            stage.file("usr/bin/tool", b"at the real path");
            stage.file("usr/bin/a/one", b"one");
            stage.file("usr/bin/file", b"a file");
            stage.file("bin/tool", b"through the link");
            stage.file("bin/a/two", b"two");
            stage.file("bin/file/inside", b"in a directory");
        },
        |rehomed| {
            assert_eq!(text(rehomed, "usr/bin/tool"), "at the real path");
            assert_eq!(text(rehomed, "usr/bin/a/one"), "one");
            assert_eq!(text(rehomed, "usr/bin/a/two"), "two");
            assert_eq!(text(rehomed, "usr/bin/file"), "a file");
        },
    );
}

/// A link that leads to no directory is replaced, unless the directory of the initramfs is empty.
#[test]
fn a_directory_replaces_what_leads_to_no_directory() {
    each(
        |stage| {
            stage.file("file", b"a file");
            for (path, target) in [
                ("dangling", "nowhere/at/all"),
                ("loop", "loop"),
                ("to-file", "file"),
                ("through-file", "file/below"),
                ("empty", "/mounted/later"),
                ("gone", "target"),
            ] {
                stage.link(path, target);
            }
            stage.dir("target");
            stage.file("plain", b"a file under an empty directory");
        },
        |stage| {
            for path in ["dangling", "loop", "to-file", "through-file", "gone"] {
                stage.file(&format!("{path}/inside"), b"inside");
            }
            stage.dir("empty");
            stage.dir("plain");
            // The initramfs replaces the directory that the link leads to.
            stage.file("target", b"a file now");
        },
        |rehomed| {
            for path in ["dangling", "loop", "to-file", "through-file", "gone"] {
                assert_eq!(text(rehomed, &format!("{path}/inside")), "inside");
            }
            assert_eq!(text(rehomed, "target"), "a file now");
            assert_eq!(text(rehomed, "file"), "a file");
            assert_eq!(rehomed.after[&b"empty"[..]].kind, Kind::Symlink);
            assert_eq!(text(rehomed, "plain"), "a file under an empty directory");
        },
    );
}

/// What is merged by renaming is overwritten if it is in the way, and everything arrives.
#[test]
fn merging_works_with_wipe() {
    let packed = pack(&[MOVE, QUICK_END, "wipe=yes"], |stage| {
        stage.file("usr/bin/tool", &[7; 100_000]);
        stage.link("bin", "usr/bin");
    });
    let add = |stage: &Stage| {
        stage.file("bin/tool", b"through the link");
        stage.file("usr/bin/tool", b"real");
        stage.file("bin/new", b"new");
    };
    for fs in Fs::ALL {
        let rehomed = run(unpacked(fs, &[], &[&packed.image], add), &Setup::default());
        assert_eq!(
            (text(&rehomed, "usr/bin/tool"), text(&rehomed, "bin/new")),
            ("real".into(), "new".into())
        );
        rehomed.check_moved();
        rehomed.check_old_root_is_empty();
    }
}
