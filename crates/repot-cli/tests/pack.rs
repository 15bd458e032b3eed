//! The command `repot pack`.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::{Work, tar, text};
use tar::EntryType;

#[test]
fn every_compression_holds_the_same_archive_and_comes_out_the_same_twice() {
    let work = Work::new();
    let readers: [(&str, &[&str]); 4] =
        [("zstd", &["-dc"]), ("gzip", &["-dc"]), ("xz", &["-dc"]), ("lz4", &["-dcq"])];
    work.done(&["pack", "root", "-o", "plain", "--compress", "none"]);
    for (format, args) in readers {
        for name in ["1", "2"] {
            work.done(&["pack", "root", "-o", name, "--compress", format]);
        }
        assert!(work.read("1") == work.read("2"), "{format}");
        fs::rename(work.path("1"), work.path(format)).unwrap();
        assert!(
            // lz4 writes everything, and then fails at the zeros that tell the kernel where the stream ends.
            work.run("sh", &["-c", &format!("{format} {} < {format} || test {format} = lz4", args[0])])
                == work.read("plain"),
            "{format}"
        );
        assert_eq!(work.inspect(format)["segments"][0]["compression"], format);
    }
}

#[test]
fn a_directory_and_a_tar_of_it_make_the_same_image() {
    let work = Work::new();
    work.done(&["pack", "root", "-o", "1"]);
    work.run("tar", &["-C", "root", "--format=pax", "-cf", "root.tar", "."]);
    work.run("xz", &["-0", "root.tar"]);
    work.done(&["pack", "root.tar.xz", "-o", "2"]);
    assert!(work.read("1") == work.read("2"));
}

#[test]
fn init_comes_first_and_the_marker_last() {
    let work = Work::new();
    work.done(&["pack", "root", "-o", "image", "--compress", "none"]);
    let names = text(&work.run("sh", &["-c", "cpio -t --quiet < image"]));
    let names: Vec<_> = names.lines().collect();
    assert_eq!(
        (names[0], names[1], names[2], names[names.len() - 1]),
        ("init", ".repot-begin", ".", ".repot-end")
    );
    for node in ["dev/console", "dev/null", "dev/kmsg"] {
        assert!(names.contains(&node), "{node}");
    }
    let found = work.inspect("image");
    assert_eq!((&found["end_marker"], &found["hard_links"]), (&"whole".into(), &1.into()));
}

#[test]
fn the_time_is_source_date_epoch_at_the_latest() {
    let work = Work::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_repot"));
    command.args(["pack", "root", "-o", "image"]).current_dir(work.dir.path());
    let out =
        command.env("REPOT_INIT", work.path("init")).env("SOURCE_DATE_EPOCH", "86400").output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let listing = text(&work.run("bsdtar", &["-tvf", "image"]));
    assert!(listing.lines().all(|line| line.contains("1970")), "{listing}");
}

#[test]
fn an_init_of_its_own_is_kept_and_chained() {
    let work = Work::new();
    fs::write(work.path("root/init"), "#!/bin/tool\n").unwrap();
    fs::set_permissions(work.path("root/init"), fs::Permissions::from_mode(0o755)).unwrap();
    let said = work.done(&["pack", "root", "-o", "image", "--config", "size=70%"]);
    assert!(said.contains("kept as /init.real"), "{said}");
    assert_eq!(
        text(&work.run("bsdtar", &["-xOf", "image", "etc/repot.conf"])),
        "chain=/init.real\nsize=70%\n"
    );
    // Packing the unpacked image again changes nothing: its /init is repot now.
    fs::create_dir(work.path("again")).unwrap();
    work.run("bsdtar", &["-xpf", "image", "-C", "again"]);
    let said = work.done(&["pack", "again", "-o", "image2"]);
    assert!(!said.contains("init.real as"), "{said}");
    assert_eq!(
        text(&work.run("bsdtar", &["-xOf", "image2", "etc/repot.conf"])),
        "chain=/init.real\nsize=70%\n"
    );
}

#[test]
fn attributes_are_listed_as_getfattr_writes_them() {
    let work = Work::new();
    let odd = "root/bin/new\nline";
    fs::write(work.path(odd), "").unwrap();
    for (name, value, file) in
        [("user.note", "hello", "root/bin/tool"), ("user.empty", "", odd), ("user.a=b", "0x00ff", "root")]
    {
        work.run("setfattr", &["-n", name, "-v", value, file]);
    }
    work.done(&["pack", "root", "-o", "image"]);
    let ours = text(&work.run("bsdtar", &["-xOf", "image", ".repot-xattrs-*"]));
    // The stamp is not an attribute of the file.
    let (stamps, ours): (Vec<_>, Vec<_>) =
        ours.split_inclusive('\n').partition(|line| line.starts_with("trusted.repot.stamp="));
    assert_eq!(stamps.len(), 3);
    let ours = ours.concat();
    let theirs = "getfattr -h -R -P -d -m - -e hex . | LC_ALL=C sed '/^$/d'";
    let theirs = text(&work.run("sh", &["-c", &format!("cd root && {theirs}")]));
    let sorted = |text: &str| {
        // One entry is one string. Ours are in the order of members, theirs in the order of the directory.
        let mut entries: Vec<_> =
            text.split("# file: ").map(|entry| entry.replace("\n\n", "\n").trim().to_string()).collect();
        entries.sort();
        entries
    };
    // getfattr lists both names of the hard link.
    let theirs: Vec<_> = sorted(&theirs).into_iter().filter(|entry| !entry.starts_with("bin/tool")).collect();
    assert_eq!(sorted(&ours), theirs);
    assert_eq!(work.inspect("image")["xattrs"], 3);
}

/// A tar archive can hold attributes that the kernel refuses.
#[test]
fn attributes_that_the_kernel_refuses_cause_a_warning() {
    let work = Work::new();
    work.run("mkfifo", &["root/bin/pipe"]);
    let archive = |key: &str| {
        let record = format!("--pax-option=SCHILY.xattr.{key}:=hello");
        work.run("tar", &["-C", "root", "--format=pax", &record, "-cf", "root.tar", "bin"]);
    };
    work.init_with_payload();
    let ways: [&[&str]; 2] = [&[], &["--payload", "--init", "init-payload"]];
    for (key, warned) in [("user.note", true), ("trusted.note", false)] {
        archive(key);
        for way in ways {
            let said = work.done(&[&["pack", "root.tar", "-o", "image"], way].concat());
            let line = "user.* attributes of /bin/link and 1 more will be lost: the kernel allows none on symbolic links";
            assert_eq!(said.contains(line), warned, "{key} {way:?}: {said}");
            assert!(!said.contains("bin/tool"), "{said}");
        }
    }
}

#[test]
fn records_of_a_tar_may_hold_line_feeds() {
    let work = Work::new();
    let long = format!("root/bin/{}\n{}", "n".repeat(120), "m".repeat(100));
    fs::write(work.path(&long), "data").unwrap();
    std::os::unix::fs::symlink(format!("{}\nx", "t".repeat(150)), work.path("root/bin/target")).unwrap();
    // A value that looks like a record.
    work.run("setfattr", &["-n", "user.note", "-v", "a\n12 path=no\n", "root/bin/tool"]);
    work.run("setfattr", &["-n", "user.a=b%", "-v", "c", "root/bin"]);
    work.done(&["pack", "root", "-o", "directory"]);
    work.run("tar", &["-C", "root", "--format=pax", "--xattrs", "-cf", "gnu.tar", "."]);
    work.done(&["pack", "gnu.tar", "-o", "image"]);
    assert!(work.read("image") == work.read("directory"));
}

#[test]
fn acls_of_a_tar_are_those_of_the_directory() {
    let work = Work::new();
    fs::create_dir(work.path("root/etc")).unwrap();
    fs::copy("/etc/passwd", work.path("root/etc/passwd")).unwrap();
    fs::copy("/etc/group", work.path("root/etc/group")).unwrap();
    work.run("setfacl", &["-m", "u:daemon:rw,u:4321:r,g:adm:rx", "root/bin/tool"]);
    work.run("setfacl", &["-d", "-m", "u:daemon:rwx", "root/bin"]);
    work.done(&["pack", "root", "-o", "directory"]);
    work.run("tar", &["-C", "root", "--acls", "-cf", "gnu.tar", "."]);
    work.run("bsdtar", &["-C", "root", "--acls", "--format=pax", "-cf", "bsd.tar", "."]);
    assert_eq!(work.inspect("directory")["xattrs"], 2);
    for archive in ["gnu.tar", "bsd.tar"] {
        work.done(&["pack", archive, "-o", "image"]);
        assert!(work.read("image") == work.read("directory"), "{archive}");
    }
    work.run("sh", &["-c", "rm root/etc/passwd; tar -C root --acls -cf gnu.tar ."]);
    let said = work.done(&["pack", "gnu.tar", "-o", "image"]);
    assert!(said.contains("warning: 2 ACLs have names"), "{said}");
}

#[test]
fn hostile_archives_are_refused_with_name_and_offset() {
    let file = EntryType::Regular;
    let cases: [(&str, Vec<u8>, &str); 8] = [
        (
            "up",
            tar(&[("ok", file, ""), ("a/../../b", file, "")]),
            "\"a/../../b\", at byte 1024: a name with \"..\"",
        ),
        ("link", tar(&[("x", EntryType::Link, "y")]), "hard link to \"y\", which does not exist"),
        ("self", tar(&[("x", EntryType::Link, "x")]), "hard link to \"x\", which does not exist"),
        (
            "loop",
            tar(&[("a", EntryType::Symlink, "b"), ("b", EntryType::Symlink, "a"), ("a/c", file, "")]),
            "loop",
        ),
        ("cut", tar(&[("a", file, "data")])[..514].to_vec(), "truncated at byte 514, in the data of \"a\""),
        ("noise", vec![b'?'; 5000], "noise: corrupt at byte 0"),
        (
            "text",
            b"root:x:0:0:root:/root:/bin/sh\n".repeat(100),
            "text: corrupt at byte 0, or not a tar archive",
        ),
        ("empty", Vec::new(), "empty is empty"),
    ];
    for (name, bytes, expected) in cases {
        let work = Work::new();
        fs::write(work.path(name), bytes).unwrap();
        let before = work.files();
        let error = work.fails(&["pack", name, "-o", "image"]);
        assert!(error.contains(expected) && error.contains(name), "{name}: {error}");
        assert_eq!(work.files(), before, "{name}");
    }
}

#[test]
fn a_link_in_the_middle_of_a_name_stays_inside() {
    let work = Work::new();
    let outside = work.path("outside");
    fs::create_dir(&outside).unwrap();
    let target = format!("{}/..{}", outside.display(), outside.display());
    let archive = tar(&[("l", EntryType::Symlink, &target), ("l/f", EntryType::Regular, "data")]);
    fs::write(work.path("a.tar"), archive).unwrap();
    work.done(&["pack", "a.tar", "-o", "image"]);
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
    let names = text(&work.run("bsdtar", &["-tf", "image"]));
    assert!(names.lines().any(|name| format!("/{name}").ends_with("/outside/f")), "{names}");
}

#[test]
fn a_bomb_of_names_is_refused() {
    let work = Work::new();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(64 << 20, b'n');
    fs::write(work.path("bomb"), bytes).unwrap();
    let error = work.fails(&["pack", "bomb", "-o", "image"]);
    assert!(error.contains("names or records are too long"), "{error}");
}

#[test]
fn no_space_leaves_nothing() {
    let work = Work::new();
    let error = work.fails(&["pack", "root", "-o", "/dev/full"]);
    assert!(error.contains("cannot write /dev/full") && error.contains("No space left"), "{error}");
    let error = work.fails(&["pack", "root", "-o", "no/such/directory/image"]);
    assert!(error.contains("cannot write no/such/directory/image"), "{error}");
    let error = work.fails(&["pack", "nothing", "-o", "image"]);
    assert_eq!(error, "repot: cannot open nothing: No such file or directory (os error 2)");
    assert_eq!(work.files(), ["init", "root"]);
}

/// `docker export` leaves an empty file at /dev/console.
#[test]
fn what_is_no_device_node_in_dev_becomes_one() {
    let work = Work::new();
    fs::write(work.path("root/dev/console"), "").unwrap();
    std::os::unix::fs::symlink("zero", work.path("root/dev/null")).unwrap();
    fs::create_dir_all(work.path("root/dev/kmsg/below")).unwrap();
    let said = work.done(&["pack", "root", "-o", "image", "--compress", "none"]);
    for line in [
        "/dev/console was an empty file: replaced with the device 5:1",
        "/dev/null was a symbolic link to zero: replaced with the device 1:3",
        "/dev/kmsg was a directory: replaced with the device 1:11",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let listing = text(&work.run("sh", &["-c", "cpio -tvn --quiet < image"]));
    for node in ["5,   1", "1,   3", "1,  11"] {
        assert!(listing.contains(node), "{listing}");
    }
    assert!(!listing.contains("below"), "{listing}");
}

#[test]
fn entries_are_left_out_by_pattern() {
    let work = Work::new();
    for name in ["usr/share/doc/a", "usr/lib/x.pyc", "opt/doc/b"] {
        fs::create_dir_all(work.path("root").join(name).parent().unwrap()).unwrap();
        fs::write(work.path("root").join(name), "").unwrap();
    }
    let exclude = ["--exclude", "/usr/share/doc/*", "--exclude=*.pyc", "--exclude", "opt", "--exclude=none"];
    let said = work.done(&[&["pack", "root", "-o", "image", "--compress", "none"][..], &exclude].concat());
    assert!(said.contains("--exclude none: nothing fits") && !said.contains("pyc"), "{said}");
    let names = text(&work.run("sh", &["-c", "cpio -t --quiet < image"]));
    let names: Vec<_> =
        names.lines().filter(|name| name.starts_with("usr") || name.starts_with("opt")).collect();
    assert_eq!(names, ["usr", "usr/lib", "usr/share", "usr/share/doc"]);
}

#[test]
fn an_image_written_into_its_root_is_not_packed_again() {
    let work = Work::new();
    for _ in 0..2 {
        work.done(&["pack", "root", "-o", "root/image", "--compress", "none"]);
    }
    let names = text(&work.run("bsdtar", &["-tf", "root/image"]));
    assert!(!names.lines().any(|name| name == "image") && names.contains("bin/tool"), "{names}");
}

#[test]
fn wrong_usage_is_two() {
    let work = Work::new();
    for args in [
        &["pack"][..],
        &["pack", "root", "-o", "image", "--config", "size=lots"],
        &["pack", "root", "-o", "image", "--level", "30"],
        &["pack", "root", "-o", "image", "--compress", "zip"],
    ] {
        assert_eq!(work.repot(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_tree_deeper_than_any_name_is_refused() {
    let work = Work::new();
    let mut archive = ::tar::Builder::new(fs::File::create(work.path("deep")).unwrap());
    let mut header = ::tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    // Each link leads to the deepest directory so far, where the next member continues.
    for step in 0..30 {
        let deepest = format!("l{step}{}", "/d".repeat(2000));
        header.set_entry_type(EntryType::Directory);
        archive.append_data(&mut header, &deepest, std::io::empty()).unwrap();
        header.set_entry_type(EntryType::Symlink);
        archive.append_link(&mut header, format!("l{}", step + 1), &deepest).unwrap();
    }
    archive.finish().unwrap();
    let error = work.fails(&["pack", "deep", "-o", "image"]);
    assert!(error.contains("newc cannot hold a name of more than 4095 bytes"), "{error}");
}

#[test]
fn the_modules_of_each_kernel_are_packed_in_order_and_uncompressed() {
    let work = Work::new();
    work.kernel_modules("6.12.1", "6.12.1");
    work.kernel_modules("6.1.2-old", "6.1.2-old");
    work.init_with_payload();
    for payload in [&[][..], &["--payload", "--init", "init-payload"]] {
        let args = ["pack", "root", "-o", "image", "--config", "zram=auto", "--json"];
        let args =
            [&args[..], &["--modules", "kernels/6.12.1", "--modules", "kernels/6.1.2-old"], payload].concat();
        let said = work.done(&args);
        let summary: serde_json::Value = serde_json::from_str(&said).unwrap();
        let names = |at: usize| summary["modules"][at]["names"].as_array().unwrap().clone();
        assert_eq!(names(0), ["zsmalloc.ko", "lz4_compress.ko", "zram.ko"], "{said}");
        // Before 6.12 the driver compresses with a module that it does not depend on.
        assert_eq!(names(1), ["zstd.ko", "zsmalloc.ko", "lz4_compress.ko", "zram.ko"]);
        assert!(!summary["warnings"].to_string().contains("zram="), "{said}");
        let read = |name: &str| {
            let path = format!(".repot-modules/6.12.1/{name}");
            text(&work.run("bsdtar", &["-xOf", "image", &path]))
        };
        assert_eq!(read("zram.order"), "zsmalloc.ko\nlz4_compress.ko\nzram.ko\n");
        assert!(read("zsmalloc.ko").starts_with("\x7fELFzsmalloc"));
    }
}

#[test]
fn modules_are_taken_from_the_root_itself() {
    let work = Work::new();
    work.kernel_modules("6.12.1", "6.12.1");
    fs::create_dir_all(work.path("root/lib")).unwrap();
    fs::rename(work.path("kernels"), work.path("root/lib/modules")).unwrap();
    let said = work.done(&["pack", "root", "-o", "image", "--modules", "auto"]);
    assert!(said.contains("6.12.1: zsmalloc.ko, lz4_compress.ko, zram.ko"), "{said}");
    assert!(said.contains("--modules without zram="), "{said}");
}

#[test]
fn a_driver_that_is_built_in_needs_no_module() {
    let work = Work::new();
    work.kernel_modules("6.12.1", "6.12.1");
    let folder = work.path("kernels/6.12.1");
    fs::write(folder.join("modules.builtin"), "kernel/drivers/block/zram/zram.ko\n").unwrap();
    fs::write(folder.join("modules.dep"), "kernel/zstd.ko:\n").unwrap();
    let said = work.done(&["pack", "root", "-o", "image", "--modules", "kernels/6.12.1"]);
    assert!(said.contains("6.12.1: built in"), "{said}");
}

#[test]
fn modules_that_cannot_be_used_are_refused() {
    let work = Work::new();
    work.kernel_modules("6.12.1", "6.12.2");
    work.kernel_modules("7.0.0", "7.0.0");
    fs::remove_file(work.path("kernels/7.0.0/kernel/lz4-compress.ko")).unwrap();
    work.kernel_modules("7.1.0", "7.1.0");
    fs::write(work.path("kernels/7.1.0/modules.dep"), "kernel/zstd.ko:\n").unwrap();
    fs::create_dir_all(work.path("kernels/empty")).unwrap();
    for (folder, why) in [
        ("6.12.1", "is for the kernel 6.12.2"),
        ("7.0.0", "kernel/lz4-compress.ko, which is missing"),
        ("7.1.0", "no swap in compressed memory"),
        ("empty", "run depmod"),
        ("none", "No such file"),
    ] {
        let said = work.fails(&["pack", "root", "-o", "image", "--modules", &format!("kernels/{folder}")]);
        assert!(said.contains(why), "{folder}: {said}");
        assert!(!work.path("image").exists(), "{folder}");
    }
}
