//! Every type of entry and attribute.
use std::fs;
use std::os::unix::fs::MetadataExt;

use repot_snapshot::Kind;
use repot_tests::rehome::rehome;
use repot_tests::trees::{Data, Fs, What, hostile};

use super::{MIB, dir, each, file, inside, one};

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
    let has = |path: &str, name: &str| entry(path).xattrs.keys().any(|key| key.as_slice() == name.as_bytes());
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
