//! GNU cpio and bsdtar read what we write.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// A tree with one entry of each kind that does not need root.
fn tree(root: &Path) {
    fs::create_dir_all(root.join("b/deep")).unwrap();
    fs::set_permissions(root.join("b"), fs::Permissions::from_mode(0o1775)).unwrap();
    fs::write(root.join("b/one"), "linked").unwrap();
    fs::hard_link(root.join("b/one"), root.join("b/two")).unwrap();
    fs::write(root.join("a file"), vec![7; 5001]).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"b\xff\n")), "odd").unwrap();
    fs::write(root.join("TRAILER!!!"), "not the end").unwrap();
    symlink("b/one", root.join("link")).unwrap();
    assert!(run("mkfifo", &["fifo"], root).is_empty());
}

fn run(program: &str, args: &[&str], within: &Path) -> String {
    let out = Command::new(program)
        .args(args)
        .current_dir(within)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (Debian: apt install cpio libarchive-tools)"));
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn pack(root: &Path, to: &Path) -> repot_cli::newc::Totals {
    repot_cli::source::directory::pack(root, File::create(to).unwrap()).unwrap()
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    fs::create_dir(&root).unwrap();
    tree(&root);
    let totals = pack(&root, &work.path().join("1"));
    run("cp", &["-a", "root", "again"], work.path());
    pack(&work.path().join("again"), &work.path().join("2"));
    assert!(fs::read(work.path().join("1")).unwrap() == fs::read(work.path().join("2")).unwrap());
    assert_eq!((totals.entries, totals.inodes, totals.bytes), (10, 9, 5001 + 6 + 3 + 11));
}

#[test]
fn gnu_cpio_and_bsdtar_unpack_it() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    fs::create_dir(&root).unwrap();
    tree(&root);
    pack(&root, &work.path().join("cpio"));
    for (into, command) in [("gnu", "cpio -idm --quiet < ../cpio"), ("bsd", "bsdtar -xpf ../cpio")] {
        let into = work.path().join(into);
        fs::create_dir(&into).unwrap();
        run("sh", &["-c", command], &into);
        run("diff", &["-r", "--no-dereference", "../root/b", "b"], &into);
        assert_eq!(fs::read(into.join("TRAILER!!!")).unwrap(), b"not the end");
        assert_eq!(fs::read(into.join("a file")).unwrap(), vec![7; 5001]);
        let (one, two) =
            (fs::metadata(into.join("b/one")).unwrap(), fs::metadata(into.join("b/two")).unwrap());
        assert_eq!(one.ino(), two.ino());
        assert_eq!(fs::metadata(into.join("b")).unwrap().mode() & 0o7777, 0o1775);
    }
}

#[test]
fn a_file_of_four_gibibytes_is_refused() {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    fs::create_dir(&root).unwrap();
    File::create(root.join("big")).unwrap().set_len(1 << 32).unwrap();
    let error = repot_cli::source::directory::pack(&root, std::io::sink()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "big: newc cannot hold a file of 4 GiB or more (4294967296 bytes), but a payload can: use --payload"
    );
}
