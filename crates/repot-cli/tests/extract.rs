//! `extract`: what is written, compared with cpio, and what must not be touched.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use support::{Work, member, text, trailer};

/// Names, modes, owners, link counts, times of files and contents below a directory. GNU cpio sets no times
/// of directories and links.
fn listing(work: &Work, directory: &str) -> String {
    let script = format!(
        "cd {directory} && find . -printf '%P %M %U:%G %n %l\\n' | LC_ALL=C sort && \
         find . -type f -printf '%P %T@\\n' -exec sha256sum '{{}}' + | LC_ALL=C sort"
    );
    text(&work.run("sh", &["-c", &script]))
}

#[test]
fn what_is_written_is_what_cpio_writes() {
    let work = Work::new();
    work.run("sh", &["-c", "mkdir -m 1777 root/tmp && mkfifo root/pipe && chmod 4750 root/bin/tool && ln -s nowhere root/broken"]);
    if rustix::process::geteuid().is_root() {
        work.run(
            "sh",
            &["-c", "mknod root/dev/node c 7 8 && chown -h 12:34 root/broken root/tmp root/dev/node"],
        );
    }
    work.run("sh", &["-c", "cd root && find . | cpio -o -H newc --quiet | zstd -q > ../image"]);
    work.run("sh", &["-c", "mkdir theirs && cd theirs && zstd -dcq ../image | cpio -idm --quiet"]);
    work.done(&["extract", "image", "-C", "ours"]);
    assert_eq!(listing(&work, "ours"), listing(&work, "theirs"));
    let tool = fs::metadata(work.path("ours/bin/tool")).unwrap();
    assert_eq!(tool.ino(), fs::metadata(work.path("ours/bin/alias")).unwrap().ino());
    // The other way, where everything is read first: with a pattern that fits all.
    work.done(&["extract", "image", "-C", "again", "**"]);
    assert_eq!(listing(&work, "again"), listing(&work, "theirs"));
}

/// The contents of files are written by a thread, while names are created. A later member that overwrites,
/// links or replaces a name must not get in its way.
#[test]
fn contents_go_to_the_members_that_they_belong_to() {
    let work = Work::new();
    let large = |letter: &str, size: usize| letter.repeat(size);
    let mut image = Vec::new();
    // Overwritten in place, by something shorter, while the first contents may still be on their way.
    for round in 0..40 {
        image.push(member("over", 0o100_644, 1, 1, &large("x", 300_000 + round)));
        image.push(member("over", 0o100_640, 2, 1, &large("y", 10 + round)));
    }
    // A hard link with contents overwrites those of the first name.
    image.push(member("first", 0o100_600, 3, 2, &large("a", 600_000)));
    image.push(member("second", 0o100_604, 3, 2, &large("b", 5)));
    // Replaced by something else.
    image.push(member("gone", 0o100_644, 4, 1, &large("c", 600_000)));
    image.push(member("gone", 0o040_711, 5, 2, ""));
    for number in 0..200u32 {
        let mode = 0o100_000 | [0o644, 0o4755, 0o000, 0o2711, 0o1666][number as usize % 5];
        image.push(member(
            &format!("gone/{number}"),
            mode,
            100 + number,
            1,
            &number.to_string().repeat(number as usize),
        ));
    }
    image.push(member("last", 0o100_444, 6, 1, &large("z", 2_000_003)));
    image.push(trailer());
    fs::write(work.path("image"), image.concat()).unwrap();
    for more in [&[][..], &["--parts"], &["**"]] {
        work.done(&[&["extract", "image", "-C", "out"][..], more].concat());
        let root = if more == ["--parts"] { "out/1" } else { "out" };
        let read = |name: &str| text(&work.read(format!("{root}/{name}")));
        let mode = |name: &str| fs::metadata(work.path(&format!("{root}/{name}"))).unwrap().mode() & 0o7777;
        assert!(read("over") == large("y", 49) && read("last") == large("z", 2_000_003), "{more:?}");
        assert_eq!((read("first"), read("second")), (large("b", 5), large("b", 5)), "{more:?}");
        assert_eq!((mode("over"), mode("first"), mode("last")), (0o640, 0o604, 0o444), "{more:?}");
        for number in 0..200usize {
            let name = format!("gone/{number}");
            assert_eq!(read(&name), number.to_string().repeat(number));
            assert_eq!(mode(&name), [0o644, 0o4755, 0o000, 0o2711, 0o1666][number % 5], "{name}");
        }
        fs::remove_dir_all(work.path("out")).unwrap();
    }
}

#[test]
fn attributes_and_payloads_come_out_as_the_init_makes_them() {
    let work = Work::new();
    work.init_with_payload();
    work.run("sh", &["-c", "setfattr -n user.a -v 1 root/bin/tool && setfacl -m u:7:r root/bin"]);
    work.done(&["pack", "root", "-o", "image"]);
    work.done(&["pack", "root", "--payload", "--init", "init-payload", "-o", "payload"]);
    for image in ["image", "payload"] {
        work.done(&["extract", image, "-C", "out"]);
        assert_eq!(work.done(&["diff", image, "out"]), "no differences\n", "{image}");
        let found = text(&work.run("getfattr", &["-d", "-m-", "--absolute-names", "out/bin/tool"]));
        assert!(found.contains("user.a=\"1\""), "{found}");
        assert!(!fs::exists(work.path("out/.repot-payload")).unwrap());
        fs::remove_dir_all(work.path("out")).unwrap();
    }
    work.done(&["extract", "payload", "-C", "out", "--parts"]);
    assert!(work.read("out/payload/bin/tool") == work.read("root/bin/tool"));
    assert!(work.read("out/1/init") == work.read("init-payload"));
}

#[test]
fn nothing_leads_out_of_the_directory() {
    let work = Work::new();
    fs::create_dir(work.path("outside")).unwrap();
    fs::write(work.path("outside/file"), "kept").unwrap();
    let outside = work.path("outside").display().to_string();
    let image = [
        member("../../outside/a", 0o100_644, 1, 1, "bad"),
        member(&format!("{outside}/b"), 0o100_644, 2, 1, "bad"),
        member("to", 0o120_777, 3, 1, "../outside"),
        member("to/file", 0o100_644, 4, 1, "bad"),
        member("abs", 0o120_777, 5, 1, &outside),
        member("abs/file", 0o100_644, 6, 1, "bad"),
        member("up", 0o120_777, 7, 1, "../../../../../../../.."),
        member("up/c", 0o100_644, 8, 1, "inside"),
        // A hard link whose first name is outside.
        member("../outside/file", 0o100_644, 9, 2, ""),
        member("link", 0o100_644, 9, 2, "bad"),
        member("..", 0o40_700, 10, 1, ""),
        member("x/..", 0o40_700, 11, 1, ""),
        trailer(),
    ];
    fs::write(work.path("image"), image.concat()).unwrap();
    let mode = fs::metadata(work.dir.path()).unwrap().mode();
    for more in [&[][..], &["--overwrite"], &["--parts"], &["**"]] {
        let arguments = [&["extract", "image", "-C", "out/in"][..], more].concat();
        fs::create_dir(work.path("out")).unwrap();
        let _ = work.repot(&arguments);
        assert_eq!(text(&work.read("outside/file")), "kept", "{more:?}");
        assert_eq!(fs::read_dir(work.path("outside")).unwrap().count(), 1, "{more:?}");
        assert_eq!(fs::read_dir(work.path("out")).unwrap().count(), 1, "{more:?}");
        assert_eq!(fs::metadata(work.dir.path()).unwrap().mode(), mode);
        fs::remove_dir_all(work.path("out")).unwrap();
    }
    work.done(&["extract", "image", "-C", "out"]);
    assert_eq!(text(&work.read("out/c")), "inside");
}

#[test]
fn what_is_there_stays_unless_asked() {
    let work = Work::new();
    work.run("sh", &["-c", "cd root && find . | cpio -o -H newc --quiet > ../image"]);
    fs::create_dir(work.path("out")).unwrap();
    fs::create_dir(work.path("out/bin")).unwrap();
    fs::write(work.path("out/bin/mine"), "mine").unwrap();
    let before = listing(&work, "out");
    let error = work.fails(&["extract", "image", "-C", "out"]);
    assert_eq!(error, "repot: out/bin exists: choose an empty directory, or use --overwrite");
    assert_eq!(listing(&work, "out"), before);
    // A link to a file outside is replaced, and what it leads to stays.
    fs::write(work.path("victim"), "kept").unwrap();
    symlink("../../victim", work.path("out/bin/tool")).unwrap();
    fs::hard_link(work.path("victim"), work.path("out/bin/alias")).unwrap();
    work.done(&["extract", "image", "-C", "out", "--overwrite"]);
    assert_eq!(text(&work.read("victim")), "kept");
    assert_eq!(text(&work.read("out/bin/mine")), "mine");
    assert!(work.read("out/bin/tool") == work.read("root/bin/tool"));
}

#[test]
fn a_corrupt_image_leaves_nothing() {
    let work = Work::new();
    work.run("sh", &["-c", "head -c 300000 /dev/urandom > root/noise; cd root && find . | cpio -o -H newc --quiet | zstd -q > ../image"]);
    let image = work.read("image");
    fs::write(work.path("cut"), &image[..image.len() / 2]).unwrap();
    let before = work.files();
    for more in [&[][..], &["--parts"], &["*"]] {
        let error = work.fails(&[&["extract", "cut", "-C", "out"][..], more].concat());
        assert!(error.starts_with("repot: cut: in the zstd segment at byte 0: "), "{error}");
        assert_eq!(work.files(), before);
    }
    // Neither in a directory that was there.
    fs::create_dir(work.path("out")).unwrap();
    work.fails(&["extract", "cut", "-C", "out"]);
    assert_eq!(fs::read_dir(work.path("out")).unwrap().count(), 0);
}

#[test]
fn patterns_choose_and_bring_their_directories() {
    let work = Work::new();
    work.run(
        "sh",
        &["-c", "mkdir -m 700 -p root/usr/lib && echo a > root/usr/lib/a.so && echo b > root/usr/b"],
    );
    work.run("sh", &["-c", "cd root && find . | cpio -o -H newc --quiet > ../image"]);
    work.done(&["extract", "image", "-C", "out", "*.so", "alias"]);
    let names = text(&work.run("sh", &["-c", "cd out && find . -mindepth 1 | LC_ALL=C sort"]));
    assert_eq!(names, "./bin\n./bin/alias\n./usr\n./usr/lib\n./usr/lib/a.so\n");
    assert_eq!(fs::metadata(work.path("out/usr/lib")).unwrap().mode() & 0o777, 0o700);
    // The data of a hard link come with another name.
    assert!(work.read("out/bin/alias") == work.read("root/bin/tool"));
    assert_eq!(
        work.fails(&["extract", "image", "-C", "none", "x"]),
        "repot: image: nothing fits the patterns"
    );
    assert!(!fs::exists(work.path("none")).unwrap());
}

#[test]
fn each_segment_gets_its_part() {
    let work = Work::new();
    let mut image =
        [member("kernel", 0o40_755, 1, 2, ""), member("kernel/x", 0o100_644, 2, 1, "early"), trailer()]
            .concat();
    image.resize(image.len().next_multiple_of(512), 0);
    fs::write(work.path("early"), image).unwrap();
    work.run("sh", &["-c", "(cat early; cd root; find . | cpio -o -H newc --quiet | gzip) > image"]);
    work.done(&["extract", "image", "-C", "out", "--parts"]);
    assert_eq!(text(&work.read("out/1/kernel/x")), "early");
    assert!(work.read("out/2/bin/tool") == work.read("root/bin/tool"));
    assert_eq!(fs::read_dir(work.path("out")).unwrap().count(), 2);
}

#[test]
fn later_members_replace_earlier_ones_as_in_the_kernel() {
    let work = Work::new();
    let image = [
        member("d", 0o40_755, 1, 2, ""),
        member("d/f", 0o100_644, 2, 1, "one"),
        member("s", 0o120_777, 3, 1, "d"),
        // Through the link.
        member("s/g", 0o100_644, 4, 1, "two"),
        // A file over a directory with entries is lost; a directory over a link replaces it.
        member("d", 0o100_644, 5, 1, "lost"),
        member("s", 0o40_700, 6, 2, ""),
        member("d/f", 0o100_600, 7, 1, "three"),
        member("early/x", 0o100_644, 8, 1, "no directory"),
        trailer(),
    ];
    fs::write(work.path("image"), image.concat()).unwrap();
    let out = work.repot(&["extract", "image", "-C", "out"]);
    assert!(out.status.success());
    assert_eq!(text(&work.read("out/d/f")), "three");
    assert_eq!(text(&work.read("out/d/g")), "two");
    assert_eq!(fs::symlink_metadata(work.path("out/s")).unwrap().mode(), 0o40_700);
    assert_eq!(text(&work.read("out/early/x")), "no directory");
    let warnings = text(&out.stderr);
    assert!(warnings.contains("\"d\": a directory with entries has its name"), "{warnings}");
    assert!(warnings.contains("\"early/x\": it comes before its directory"), "{warnings}");
}

#[test]
fn without_root_the_rest_is_reported() {
    let work = Work::new();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: it needs root to make a device node");
        return;
    }
    work.run("sh", &["-c", "mknod root/dev/node c 7 8; chmod 4755 root/bin/tool; chmod 555 root/bin; cd root && find . | cpio -o -H newc --quiet > ../image"]);
    work.run("sh", &["-c", "chmod 755 . && mkdir -m 777 free && cp $0 repot", env!("CARGO_BIN_EXE_repot")]);
    let script =
        "setpriv --reuid 65534 --regid 65534 --clear-groups ./repot extract --json image -C free/out";
    let said: serde_json::Value = serde_json::from_slice(&work.run("sh", &["-c", script])).unwrap();
    let warnings = said["warnings"].to_string();
    assert!(warnings.contains("dev/node") && warnings.contains("only root can create"), "{warnings}");
    assert!(warnings.contains("its owner could not be set"), "{warnings}");
    assert_eq!(fs::metadata(work.path("free/out/bin/tool")).unwrap().mode(), 0o100_755);
    assert_eq!(fs::metadata(work.path("free/out/bin")).unwrap().mode(), 0o40_555);
}
