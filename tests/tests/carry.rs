//! Mounts move with the root: all of them, in order, and unchanged.
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use repot_tests::rehome::{Rehomed, rehome, run};
use repot_tests::sandbox::Setup;
use repot_tests::stage::{Stage, prepare};
use repot_tests::trees::{Fs, Plant, hostile, one_of_each, plant, trees};

/// What every test here has in the tree, next to the mounts.
fn with_mounts(fs: Fs, mount: impl FnOnce(&repot_tests::stage::Stage) + Send) -> Rehomed {
    let moved = rehome(fs, |stage| {
        stage.plant(&one_of_each());
        mount(stage);
    });
    moved.check();
    moved
}

#[test]
fn mounts_at_any_depth_with_everything_in_them() {
    for fs in Fs::ALL {
        with_mounts(fs, |stage| {
            stage.file("data/beside", b"in the root");
            let disk = stage.mount(Fs::Tmpfs, "data/very/deep/disk");
            plant(&disk, Fs::Tmpfs, &hostile());
            plant(stage.mount(Fs::Ramfs, "top"), Fs::Ramfs, &one_of_each());
        });
    }
}

#[test]
fn mounts_on_mounts() {
    with_mounts(Fs::Ramfs, |stage| {
        stage.mount(Fs::Tmpfs, "a");
        stage.mount(Fs::Ramfs, "a/b");
        stage.mount(Fs::Tmpfs, "a/b/c/d");
        stage.file("a/b/c/d/e", b"at the bottom");
        stage.mount(Fs::Tmpfs, "a/x");
    });
}

#[test]
fn mounts_stacked_on_one_directory_stay_in_order() {
    let moved = with_mounts(Fs::Tmpfs, |stage| {
        for layer in ["lowest", "middle", "topmost"] {
            stage.mount(if layer == "middle" { Fs::Ramfs } else { Fs::Tmpfs }, "stack");
            stage.file("stack/layer", layer.as_bytes());
        }
        // Below a stack, which hides it: by path, only the topmost mount is visible.
        stage.mount(Fs::Tmpfs, "stack/on/top");
    });
    assert_eq!(moved.mounts["/stack"].len(), 3);
    let root = format!("/proc/{}/root/stack/layer", moved.running.pid().as_raw_pid());
    assert_eq!(fs::read_to_string(root).expect("the topmost layer"), "topmost");
}

#[test]
fn a_mount_that_another_hides_is_carried_too() {
    let moved = with_mounts(Fs::Tmpfs, |stage| {
        stage.mount(Fs::Tmpfs, "outer/inner");
        stage.file("outer/inner/file", b"hidden");
        // Over the directory above: the inner mount cannot be reached by path any more.
        stage.mount(Fs::Ramfs, "outer");
        stage.file("outer/file", b"seen");
    });
    assert!(moved.mounts.contains_key("/outer/inner") && moved.mounts.contains_key("/outer"));
}

#[test]
fn files_mounted_on_files() {
    let moved = with_mounts(Fs::Ramfs, |stage| {
        stage.mount(Fs::Tmpfs, "run");
        stage.file("run/resolv.conf", b"nameserver ::1\n");
        stage.file("etc/resolv.conf", b"beneath");
        stage.bind("run/resolv.conf", "etc/resolv.conf");
        stage.file("etc/large", &vec![7; 3 << 20]);
        stage.bind("run/resolv.conf", "etc/large");
    });
    let root = format!("/proc/{}/root/etc/resolv.conf", moved.running.pid().as_raw_pid());
    assert_eq!(fs::read_to_string(root).expect("the file on top"), "nameserver ::1\n");
}

/// A directory of another file system, mounted a second time.
#[test]
fn binds_of_directories() {
    with_mounts(Fs::Tmpfs, |stage| {
        stage.mount(Fs::Tmpfs, "disk");
        stage.file("disk/part/file", b"once");
        stage.dir("part");
        stage.bind("disk/part", "part");
    });
}

/// systemd makes all mounts shared, which forbids moving them. They are shared again afterwards.
#[test]
fn shared_mounts_stay_shared() {
    let moved = with_mounts(Fs::Tmpfs, |stage| {
        stage.mount(Fs::Tmpfs, "shared");
        stage.share("shared");
        stage.mount(Fs::Tmpfs, "shared/below");
        stage.mount(Fs::Tmpfs, "private");
    });
    assert!(moved.mounts["/shared"][0].what.shared && moved.mounts["/shared/below"][0].what.shared);
    assert!(!moved.mounts["/private"][0].what.shared);
}

#[test]
fn a_shared_root_is_shared_afterwards() {
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.install("mode=move\n");
        stage.plant(&one_of_each());
        stage.mount(Fs::Tmpfs, "data");
        stage.mount(Fs::Ramfs, "data/disk");
    });
    let moved = run(prepared, &Setup { shared: true, ..Setup::default() });
    moved.check();
    assert!(moved.mounts["/"][0].what.shared);
}

/// Mount points with unusual names, which the kernel escapes.
#[test]
fn mount_points_of_any_name() {
    let long = "n".repeat(255);
    with_mounts(Fs::Ramfs, |stage| {
        for name in ["with space", "with\ttab", "with\nnewline", "back\\slash", "#hash", long.as_str()] {
            stage.mount(Fs::Tmpfs, name);
            stage.file(&format!("{name}/file"), name.as_bytes());
        }
        // Longer than PATH_MAX.
        stage.mount(Fs::Tmpfs, &[long.as_str(); 14].join("/"));
    });
}

/// Mount points keep their own attributes and what they hide.
#[test]
fn what_a_mount_hides_is_moved_with_it() {
    let moved = with_mounts(Fs::Tmpfs, |stage| {
        stage.file("hidden/below/file", b"under the mount");
        stage.mount(Fs::Tmpfs, "hidden");
        stage.file("hidden/other", b"on top");
    });
    assert!(moved.after.contains_key(b"hidden/below/file".as_slice()), "{:?}", moved.after.keys());
    let device = |path: &str| {
        let path = format!("/proc/{}/root/{path}", moved.running.pid().as_raw_pid());
        fs::metadata(path).expect("there").dev()
    };
    assert_ne!(device("hidden"), device(""));
}

/// Many mounts, as on container hosts.
#[test]
fn a_hundred_mounts() {
    let moved = with_mounts(Fs::Tmpfs, |stage| {
        for number in 0..50 {
            stage.mount(Fs::Ramfs, &format!("containers/{number}/merged"));
            stage.mount(Fs::Tmpfs, &format!("containers/{number}/merged/shm"));
        }
    });
    assert_eq!(moved.mounts.len(), 101);
}

/// Also with a bind: the same file system mounted once more, with all its mounts.
#[test]
fn a_bind_carries_mounts_too() {
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            stage.install("mode=bind\n");
            stage.plant(&one_of_each());
            stage.mount(Fs::Tmpfs, "stack");
            stage.mount(Fs::Ramfs, "stack");
            stage.mount(Fs::Tmpfs, "stack/inner");
            stage.file("stack/inner/file", b"kept");
            stage.bind("stack/inner/file", "a/small");
        });
        let bound = run(prepared, &Setup::default());
        let root = |table: &repot_tests::mounts::Table| table["/"][0].what.device.clone();
        assert_eq!(root(&bound.prepared.mounts), root(&bound.mounts), "{}", bound.running.log());
        assert!(bound.running.log().contains("bind: "), "{}", bound.running.log());
        bound.check_tree();
        bound.check_mounts();
    }
}

/// Mounts anywhere in random trees: on directories, on hard links, on what other mounts hide, of the tree
/// itself.
#[test]
fn random_mounts_on_random_trees() {
    let config =
        ProptestConfig { cases: 48, failure_persistence: None, max_shrink_iters: 60, ..Default::default() };
    let cases =
        (proptest::sample::select(&Fs::ALL[..]), trees(40), proptest::collection::vec(any::<Index>(), 1..8));
    let result = TestRunner::new(config).run(&cases, |(fs, tree, places)| {
        let moved = rehome(fs, |stage| {
            stage.plant(&tree);
            stage.mount(Fs::Tmpfs, "sbin/disk");
            stage.file("sbin/disk/file", b"on another file system");
            for place in &places {
                mount_somewhere(stage, &tree, place);
            }
        });
        moved.check();
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn mount_somewhere(stage: &Stage, tree: &[Plant], place: &Index) {
    let plant = place.get(tree);
    let path = stage.path("").join(std::ffi::OsStr::from_bytes(&plant.path));
    // What an earlier mount hides cannot be reached any more, what is too deep has no path, and the root is
    // not a mount point here.
    let there = fs::symlink_metadata(&path);
    let Ok(meta) = there.map(|meta| meta.file_type()) else { return };
    if plant.path.is_empty() || plant.path.starts_with(b"etc") || plant.path.starts_with(b"sbin") {
        return;
    }
    let bind = |from: &std::path::Path| rustix::mount::mount_bind(from, &path).expect("bound");
    match (place.index(4), meta.is_dir(), meta.is_file()) {
        (0, true, _) => bind(&path),
        (1, true, _) => bind(&stage.path("sbin")),
        (_, true, _) => {
            stage.mount_on(Fs::Tmpfs, &path);
            fs::write(path.join("on the mount"), b"kept").expect("a file on the mount");
        }
        (0, _, true) => bind(&path),
        (1, _, true) => bind(&stage.path("sbin/init")),
        (_, _, true) => bind(&stage.path("sbin/disk/file")),
        _ => {}
    }
}

/// Several files mounted on one file: each hides the one before.
#[test]
fn files_stacked_on_one_file() {
    for (count, plain) in [(1, true), (2, true), (3, true), (2, false)] {
        let moved = with_mounts(Fs::Ramfs, |stage| {
            stage.file("under", b"the lowest");
            stage.mount(Fs::Tmpfs, "disk");
            for layer in 0..count {
                stage.file(&format!("disk/layer {layer}"), b"over it");
                stage.bind(&format!("disk/layer {layer}"), "under");
            }
            if !plain {
                stage.mount(Fs::Tmpfs, "other");
                stage.mount(Fs::Tmpfs, "other");
            }
        });
        assert_eq!(moved.mounts["/under"].len(), count);
    }
}

/// The kernel moves nothing away from a shared mount, and what is on top hides it: then nothing changes.
#[test]
fn a_stack_on_a_shared_mount_keeps_the_root_in_place() {
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.install("mode=move\n");
        stage.plant(&one_of_each());
        stage.mount(Fs::Tmpfs, "a/plain");
        stage.mount(Fs::Tmpfs, "stack");
        stage.share("stack");
        stage.mount(Fs::Ramfs, "stack");
        stage.file("stack/on top", b"of it");
    });
    let stayed = run(prepared, &Setup::default());
    let log = stayed.running.log();
    assert!(
        log.contains("carry: move_mount \"/stack\": EINVAL") && log.contains("stay: bind failed"),
        "{log}"
    );
    assert_eq!(stayed.prepared.mounts["/"][0].what.device, stayed.mounts["/"][0].what.device, "{log}");
    stayed.check_tree();
    stayed.check_mounts();
}
