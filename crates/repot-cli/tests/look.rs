//! `ls` and `cat`: what is in an image, compared with cpio and bsdtar.

mod support;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use support::{Work, member, text, trailer};

const COMPRESSORS: [(&str, &str); 7] = [
    ("none", "cat"),
    ("gzip", "gzip"),
    ("xz", "xz --check=crc32"),
    ("zstd", "zstd -q"),
    ("lz4", "lz4 -lq"),
    ("bzip2", "bzip2"),
    ("lzma", "lzma"),
];

/// Writes `plain`, an archive of GNU cpio.
fn archive(work: &Work) {
    work.run("sh", &["-c", "cd root && find . | LC_ALL=C sort | cpio -o -H newc --quiet > ../plain"]);
}

#[test]
fn names_are_those_of_cpio_in_every_compression() {
    let work = Work::new();
    archive(&work);
    let names = text(&work.run("cpio", &["-t", "--quiet", "-F", "plain"]));
    assert!(names.lines().count() >= 6, "{names}");
    for (name, compressor) in COMPRESSORS {
        work.run("sh", &["-c", &format!("{compressor} < plain > image")]);
        assert_eq!(text(&work.repot(&["ls", "image"]).stdout), names, "{name}");
        // The same from a pipe.
        let out = work.run("sh", &["-c", &format!("cat image | {} ls -", env!("CARGO_BIN_EXE_repot"))]);
        assert_eq!(text(&out), names, "{name}");
    }
}

#[test]
fn the_long_list_has_what_bsdtar_lists() {
    let work = Work::new();
    fs::write(work.path("root/odd name"), "x").unwrap();
    work.run("touch", &["-d", "2001-02-03 04:05 UTC", "root/bin/tool"]);
    work.run("chmod", &["4751", "root/bin/tool"]);
    archive(&work);
    // bsdtar: mode, links, owner, group, size, then the time and the name.
    let theirs = text(&work.run("bsdtar", &["-tvf", "plain", "--numeric-owner"]));
    let ours = work.done(&["ls", "-l", "plain"]);
    let first = |line: &str| line.split_whitespace().take(5).collect::<Vec<_>>().join(" ");
    let theirs: Vec<_> = theirs.lines().map(first).collect();
    let ours: Vec<_> = ours.lines().map(|line| line.strip_prefix("1 ").unwrap_or(line)).map(first).collect();
    assert_eq!(ours, theirs);
    let line = work.done(&["ls", "-l", "plain", "bin/tool"]);
    assert!(line.starts_with("1 -rwsr-x--x 2 "), "{line}");
    assert!(line.ends_with(" 2001-02-03 04:05 bin/tool\n"), "{line}");
}

#[test]
fn a_later_segment_overrides_and_is_marked() {
    let work = Work::new();
    let first = [
        member("kernel", 0o40_755, 1, 2, ""),
        member("kernel/x", 0o100_644, 2, 1, "one"),
        member("a\x01", 0o100_644, 3, 1, ""),
        trailer(),
    ];
    let second =
        [member("kernel", 0o40_700, 1, 2, ""), member("kernel/x", 0o100_600, 2, 1, "three"), trailer()];
    let mut image = first.concat();
    image.resize(1024, 0);
    image.extend(second.concat());
    fs::write(work.path("image"), image).unwrap();
    assert_eq!(
        work.done(&["ls", "-l", "image"]),
        "1 drwxr-xr-x 2 0 0 0 1970-01-01 00:00 kernel\n\
         1 -rw-r--r-- 1 0 0 3 1970-01-01 00:00 kernel/x (overridden)\n\
         1 -rw-r--r-- 1 0 0 0 1970-01-01 00:00 a\x01\n\
         2 drwx------ 2 0 0 0 1970-01-01 00:00 kernel\n\
         2 -rw------- 1 0 0 5 1970-01-01 00:00 kernel/x\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&work.done(&["ls", "--json", "image", "*/x"])).unwrap();
    let seen: Vec<_> =
        json.as_array().unwrap().iter().map(|one| (&one["segment"], &one["overridden"])).collect();
    assert_eq!(seen, [(&1.into(), &true.into()), (&2.into(), &false.into())]);
    assert_eq!(work.done(&["cat", "image", "kernel/x"]), "three");
    assert_eq!(work.done(&["cat", "image", "/kernel/x", "--segment", "1"]), "one");
    let error = work.fails(&["cat", "image", "kernel/x", "--segment", "3"]);
    assert_eq!(error, "repot: image has 2 segments, so --segment 3 is none");
}

#[test]
fn cat_follows_links_and_finds_data_of_hard_links() {
    let work = Work::new();
    fs::create_dir(work.path("root/usr")).unwrap();
    std::os::unix::fs::symlink("/bin", work.path("root/usr/bin")).unwrap();
    std::os::unix::fs::symlink("loop", work.path("root/loop")).unwrap();
    archive(&work);
    let bytes = work.read("root/bin/tool");
    for path in ["bin/tool", "bin/alias", "/usr/bin/link", "../usr/bin/../bin/tool"] {
        assert!(work.repot(&["cat", "plain", path]).stdout == bytes, "{path}");
    }
    for (path, expected) in [
        ("bin", "repot: plain: bin is a directory, not a file"),
        ("loop", "repot: plain: loop is a symbolic link to nothing, or to itself"),
        ("bin/none", "repot: plain: bin/none does not exist"),
    ] {
        assert_eq!(work.fails(&["cat", "plain", path]), expected);
    }
}

#[test]
fn the_entries_of_a_payload_are_listed_and_printed() {
    let work = Work::new();
    work.init_with_payload();
    fs::create_dir(work.path("root/etc")).unwrap();
    fs::write(work.path("root/etc/hello"), "hello").unwrap();
    work.done(&["pack", "root", "--payload", "--init", "init-payload", "-o", "image"]);
    let listed = work.done(&["ls", "-l", "image", "etc", ".repot-payload/index"]);
    let from: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(from, ["1", "payload", "payload"], "{listed}");
    assert_eq!(work.done(&["cat", "image", "etc/hello"]), "hello");
    assert!(work.repot(&["cat", "image", "bin/link"]).stdout == work.read("root/bin/tool"));
}

#[test]
fn a_corrupt_image_is_listed_up_to_the_corruption() {
    let work = Work::new();
    archive(&work);
    let plain = work.read("plain");
    fs::write(work.path("cut"), &plain[..plain.len() - 2000]).unwrap();
    let out = work.repot(&["ls", "cut"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stdout).lines().count() >= 2, "{}", text(&out.stdout));
    let error = text(&out.stderr);
    assert!(error.starts_with("repot: cut: in the archive at byte 0: truncated"), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let work = Work::new();
    let at = |offset: usize, magic: &[u8]| {
        let mut bytes = vec![0; 70_000];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        bytes
    };
    let uimage = [&b"\x27\x05\x19\x56"[..], &[1; 100]].concat();
    for (bytes, name) in [
        (at(0x438, b"\x53\xef"), "an ext2, ext3 or ext4 file system"),
        (at(0x8001, b"CD001"), "an ISO 9660 image"),
        (at(0, b"hsqs"), "a squashfs image"),
        (at(0, b"QFI\xfb"), "a qcow2 disk image"),
        (at(0x202, b"HdrS"), "a Linux kernel"),
        (at(257, b"ustar"), "a tar archive"),
        (uimage, "a U-Boot image (uImage)"),
        (at(0, b"\x7fELF"), "a program"),
    ] {
        fs::write(work.path("other"), bytes).unwrap();
        let before = work.files();
        for command in [
            &["ls", "other"][..],
            &["inspect", "other"],
            &["cat", "other", "x"],
            &["extract", "other", "-C", "out"],
            &["append", "other", "-o", "out"],
            &["boot", "other"],
        ] {
            let error = work.fails(command);
            let expected = format!("repot: other: this is {name}, not an initramfs (");
            assert!(error.starts_with(&expected) && error.len() > expected.len() + 9, "{command:?}: {error}");
        }
        assert_eq!(work.files(), before);
    }
    fs::write(work.path("zeros"), [0; 5000]).unwrap();
    assert_eq!(work.fails(&["ls", "zeros"]), "repot: zeros is empty");
    work.run("sh", &["-c", "tar -C root -c . | gzip > other"]);
    let error = work.fails(&["ls", "other"]);
    assert!(error.contains("this is a tar archive, not an initramfs"), "{error}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let work = Work::new();
    let names: Vec<_> =
        (0..20_000).map(|number| member(&format!("file-{number}"), 0o100_644, number, 1, "")).collect();
    fs::write(work.path("many"), [names.concat(), trailer()].concat()).unwrap();
    let script = "($0 ls many; echo $? >&2) | head -1";
    let out = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_repot")])
        .current_dir(work.dir.path())
        .output()
        .unwrap();
    assert_eq!((text(&out.stdout), text(&out.stderr)), ("file-0\n".into(), "141\n".into()));
}

#[test]
fn nothing_that_fits_is_a_failure() {
    let work = Work::new();
    archive(&work);
    assert_eq!(work.fails(&["ls", "plain", "nope", "*.so"]), "repot: plain: nothing fits nope *.so");
}

/// What is listed of an uncompressed archive does not depend on how the input is read.
#[test]
fn a_pipe_gives_the_same_list_as_a_file() {
    let work = Work::new();
    fs::write(work.path("root/large"), vec![7; 900_001]).unwrap();
    archive(&work);
    let file = work.done(&["ls", "-l", "plain"]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_repot"))
        .args(["ls", "-l", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = work.read("plain");
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(text(&out.stdout), file);
}
