//! The kernel's rules for members that meet what earlier members left, and for what repot put into an image.
//! docs/kernel-formats.md shows them by boots.

mod support;

use std::fs;

use repot_cli::newc::{Header, Writer};
use support::Work;

/// A member: name, type and permissions, inode number for hard links, data.
type Member = (&'static str, u32, u32, &'static [u8]);

const DIR: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

fn archive(members: &[Member]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, mode, ino, data) in members {
        let nlink = if *ino > 0 { 2 } else { 1 };
        let header =
            Header { name: name.as_bytes().to_vec(), ino: *ino, mode: *mode, nlink, ..Header::default() };
        writer.append(&header, data).unwrap();
    }
    writer.finish().unwrap()
}

/// The problems of an image of these archives.
fn problems(archives: &[&[Member]]) -> Vec<String> {
    let work = Work::new();
    let bytes: Vec<u8> = archives.iter().flat_map(|members| archive(members)).collect();
    fs::write(work.path("image"), bytes).unwrap();
    let found = work.inspect("image");
    let list = found["problems"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_string());
    list.filter(|line| !line.contains("/init") && !line.contains("/dev/console")).collect()
}

#[test]
fn only_an_empty_directory_makes_way() {
    let lost = problems(&[
        &[("d", DIR, 0, b""), ("d/f", FILE, 0, b"")],
        &[("d", FILE, 0, b"x"), ("d", LINK, 0, b"y")],
    ]);
    assert_eq!(lost.len(), 2, "{lost:?}");
    assert!(lost[0].starts_with("\"d\" is lost: a directory with entries has this name"), "{lost:?}");
    assert_eq!(lost[1], "2 members in total have the name of a directory with entries and are lost");
    assert_eq!(problems(&[&[("d", DIR, 0, b"")], &[("d", FILE, 0, b"x")]]), [""; 0]);
    assert_eq!(problems(&[&[("f", FILE, 0, b"x")], &[("f", DIR, 0, b""), ("f/x", FILE, 0, b"")]]), [""; 0]);
}

#[test]
fn a_file_is_overwritten_through_all_its_names() {
    let pair: &[Member] = &[("a", FILE, 1, b""), ("b", FILE, 1, b"old")];
    let shared = problems(&[pair, &[("a", FILE, 0, b"new")]]);
    assert_eq!(shared, ["\"a\" overwrites a file in place: its other hard links change too"]);
    // A symbolic link makes the kernel remove the name first.
    assert_eq!(problems(&[pair, &[("a", LINK, 0, b"b"), ("a", FILE, 0, b"new")]]), [""; 0]);
}

#[test]
fn a_directory_takes_the_place_of_a_symbolic_link() {
    let merged: &[Member] = &[("usr", DIR, 0, b""), ("usr/lib", DIR, 0, b""), ("lib", LINK, 0, b"usr/lib")];
    let replaced = problems(&[merged, &[("lib", DIR, 0, b""), ("lib/new", FILE, 0, b"")]]);
    assert_eq!(replaced.len(), 1, "{replaced:?}");
    assert!(replaced[0].starts_with("the directory \"lib\" replaces a symbolic link: "), "{replaced:?}");
    assert_eq!(problems(&[merged, &[("lib/new", FILE, 0, b"")]]), [""; 0]);
}

#[test]
fn the_root_directory_must_be_open_to_all() {
    let closed = problems(&[&[(".", 0o040_700, 0, b"")]]);
    assert_eq!(closed, ["the root directory has mode 0700: only its owner can enter / (chmod 755)"]);
}

#[test]
fn streams_that_only_xz_reads_are_found() {
    let work = Work::new();
    for (check, why) in
        [("crc32", None), ("none", None), ("crc64", Some("crc64")), ("sha256", Some("sha256"))]
    {
        work.run(
            "sh",
            &["-c", &format!("(cd root && find . | cpio -o -H newc --quiet) | xz --check={check} > image")],
        );
        let problems = work.inspect("image")["problems"].to_string();
        let found = problems.contains("the kernel cannot decompress the segment at byte 0");
        assert_eq!(found, why.is_some(), "{problems}");
        assert!(why.is_none_or(|why| problems.contains(why)), "{problems}");
        let warned = work.done(&["append", "image", "-o", "out", "--rdinit", "/repot"]);
        assert_eq!(warned.contains("warning: the kernel cannot decompress"), why.is_some(), "{warned}");
    }
}

#[test]
fn archives_with_checksums_are_named() {
    let work = Work::new();
    work.run("sh", &["-c", "(cd root && find . | cpio -o -H crc --quiet) > image"]);
    assert!(work.inspect("image")["problems"].to_string().contains("070702"), "{}", work.inspect("image"));
}

/// Attributes of two packed images add up, and those of a file that was replaced do not count.
#[test]
fn attribute_manifests_add_up() {
    let work = Work::new();
    let note = |name: &str| {
        let path = work.path(name);
        rustix::fs::setxattr(&path, "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    };
    note("root/bin/tool");
    work.done(&["pack", "root", "-o", "a", "-c", "none"]);
    fs::create_dir_all(work.path("root2/bin")).unwrap();
    fs::write(work.path("root2/bin/other"), "other").unwrap();
    note("root2/bin/other");
    work.done(&["pack", "root2", "-o", "b"]);
    let both = [work.read("a"), work.read("b")].concat();
    fs::write(work.path("both"), &both).unwrap();
    assert_eq!(work.inspect("both")["xattrs"], 2);
    // Another file of this name has no attributes of the first.
    let over = archive(&[("bin/other", FILE, 0, b"another")]);
    fs::write(work.path("over"), [both, over].concat()).unwrap();
    assert_eq!(work.inspect("over")["xattrs"], 1);
}

/// The kernel remembers the first name of an inode, and links the others to whatever has that name by then.
#[test]
fn a_hard_link_is_made_to_a_name() {
    let lost = problems(&[&[("none/f", FILE, 1, b""), ("g", FILE, 1, b"data")]]);
    assert!(
        lost[1].starts_with("\"g\" is lost: the first name of its inode was lost or replaced"),
        "{lost:?}"
    );
    let lost = problems(&[&[("f", FILE, 1, b"x"), ("f", DIR, 0, b""), ("g", FILE, 1, b"data")]]);
    assert!(lost[0].starts_with("\"g\" is lost: the first name"), "{lost:?}");
    // The kernel removes the name before it links to it.
    let lost = problems(&[&[("f", FILE, 1, b"x"), ("f", FILE, 1, b"x")]]);
    assert!(lost[0].starts_with("\"f\" is lost: the first name"), "{lost:?}");
    assert_eq!(problems(&[&[("f", FILE, 1, b"x"), ("f", LINK, 0, b"y"), ("g", FILE, 1, b"")]]), [""; 0]);
}

/// What `pack` makes of an initramfs is what the kernel makes of it.
#[test]
fn hard_links_reach_across_segments_without_a_trailer() {
    let work = Work::new();
    let mut first = archive(&[("a", FILE, 1, b"data")]);
    first.truncate(112 + 4);
    let second = archive(&[("b", 0o100_600, 1, b""), ("c", FILE, 2, b"")]);
    for (name, bytes) in [("first", first), ("second", second)] {
        fs::write(work.path(name), bytes).unwrap();
    }
    let script = "gzip -c first > image && truncate -s %4 image && gzip -c second >> image";
    work.run("sh", &["-c", script]);
    work.done(&["pack", "image", "-o", "packed", "-c", "none"]);
    let listing = support::text(&work.run("sh", &["-c", "cpio -tvn --quiet < packed"]));
    let of = |name: &str| {
        let line = listing.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap_or_default();
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    // The last name sets owner and mode.
    assert_eq!((of("a").as_str(), of("b").as_str()), ("-rw------- 2", "-rw------- 2"), "{listing}");
    assert_eq!(support::text(&work.run("sh", &["-c", "cpio -i --to-stdout --quiet a < packed"])), "data");
}
