//! An existing initramfs as the source of `pack`.

mod support;

use std::fs;

use support::{Work, text};

/// The names in an image without compression, in order.
fn names(work: &Work, image: &str) -> Vec<String> {
    let listing = text(&work.run("sh", &["-c", &format!("cpio -t --quiet < {image}")]));
    listing.lines().map(str::to_string).collect()
}

/// An archive for the kernel itself, and a root of two segments, the second of which replaces files.
fn parts(work: &Work) {
    let script = "mkdir -p early/kernel/x86/microcode over/etc && head -c 5000 /dev/zero | tr '\\0' m > \
                  early/kernel/x86/microcode/GenuineIntel.bin && mkdir root/etc && echo old > root/etc/name && \
                  printf '#!/bin/tool\\n' > root/init && chmod 755 root/init && echo new > over/etc/name && \
                  echo more > over/etc/more && for part in early root over; do (cd $part && find . | LC_ALL=C sort | \
                  cpio -o -H newc --quiet) > $part.cpio; done";
    work.run("sh", &["-c", script]);
}

#[test]
fn all_segments_are_merged_whatever_their_compression() {
    let work = Work::new();
    parts(&work);
    let packers = ["cat", "gzip -c", "bzip2 -c", "xz --check=crc32 -c", "xz --format=lzma -c", "zstd -qc"];
    for packer in packers {
        // A compressed segment ends anywhere, an uncompressed one starts at a multiple of 4.
        let script = format!(
            "(cat early.cpio; {packer} < root.cpio) > image && truncate -s %4 image && cat over.cpio >> image"
        );
        work.run("sh", &["-c", &script]);
        let said = work.done(&["pack", "image", "-o", "packed", "--compress", "none"]);
        assert!(said.contains("/init is kept as /init.real"), "{packer}: {said}");
        let early = work.read("early.cpio");
        assert!(work.read("packed").starts_with(&early), "{packer}");
        let contents = |name: &str| {
            let end = early.len().next_multiple_of(512);
            text(&work.run(
                "sh",
                &["-c", &format!("tail -c +{} packed | cpio -i --quiet --to-stdout {name}", end + 1)],
            ))
        };
        assert_eq!(
            (contents("etc/name"), contents("etc/more")),
            ("new\n".into(), "more\n".into()),
            "{packer}"
        );
        let found = work.inspect("packed");
        assert_eq!((&found["end_marker"], &found["hard_links"]), (&"whole".into(), &1.into()), "{packer}");
        assert_eq!(found["segments"].as_array().map(Vec::len), Some(2), "{packer}");
        // The same from a pipe.
        let piped = "cat image | \"$0\" pack - -o piped --compress none > /dev/null 2>&1 && cmp piped packed";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", piped, env!("CARGO_BIN_EXE_repot")]).current_dir(work.dir.path());
        assert!(shell.env("REPOT_INIT", work.path("init")).status().unwrap().success(), "{packer}");
    }
}

#[test]
fn a_payload_is_made_of_it_and_read_again() {
    let work = Work::new();
    parts(&work);
    work.init_with_payload();
    work.run("sh", &["-c", "cat early.cpio root.cpio over.cpio > image"]);
    let payload = ["--payload", "--init", "init-payload"];
    work.done(&[&["pack", "image", "-o", "first"][..], &payload].concat());
    assert!(work.read("first").starts_with(&work.read("early.cpio")));
    let found = work.inspect("first");
    assert_eq!(
        (&found["payload"]["entries"], &found["damage"]),
        (&12.into(), &serde_json::Value::Null),
        "{found}"
    );
    // An image of repot is a source too: the payload is unpacked, and nothing is chained twice.
    let said = work.done(&["pack", "first", "-o", "second", "--compress", "none"]);
    assert!(!said.contains("kept as"), "{said}");
    let names = names(&work, "second");
    assert!(!names.iter().any(|name| name.starts_with(".repot-payload")), "{names:?}");
    work.done(&["pack", "image", "-o", "direct", "--compress", "none"]);
    assert!(work.read("second") == work.read("direct"));
}

#[test]
fn extended_attributes_of_an_image_are_kept() {
    let work = Work::new();
    work.run("setfattr", &["-n", "user.note", "-v", "a=b", "root/bin/tool"]);
    work.run("setfattr", &["-n", "user.note", "-v", "", "root/bin"]);
    work.done(&["pack", "root", "-o", "first", "--compress", "none"]);
    work.done(&["pack", "first", "-o", "second", "--compress", "none"]);
    assert!(work.read("first") == work.read("second"));
    assert_eq!(work.inspect("second")["xattrs"], 2);
}

#[test]
fn what_is_wrong_with_it_is_named() {
    let work = Work::new();
    parts(&work);
    let error = work.fails(&["pack", "early.cpio", "-o", "image"]);
    assert!(error.contains("only what belongs in front of an initramfs"), "{error}");
    work.run("sh", &["-c", "head -c 5000 root.cpio > cut; (cat root.cpio; echo junk) > junk"]);
    let error = work.fails(&["pack", "cut", "-o", "image"]);
    assert!(error.contains("cut: ") && error.contains("truncated"), "{error}");
    let error = work.fails(&["pack", "junk", "-o", "image"]);
    assert!(error.contains("junk: neither a cpio archive nor compressed"), "{error}");
    assert!(!fs::exists(work.path("image")).unwrap());
    // A member before its directory is lost, as in the kernel, and that is said.
    fs::write(work.path("list"), "bin/link\nbin\n").unwrap();
    work.run("sh", &["-c", "cd root && cpio -o -H newc --quiet < ../list > ../lost"]);
    let said = work.done(&["pack", "lost", "-o", "image"]);
    assert!(
        said.contains("\"bin/link\": it comes before its directory, so the kernel loses it too"),
        "{said}"
    );
}
