//! The command `repot inspect`: whole images, corrupt images, and images of other tools.

mod support;

use std::fs;

use support::{Work, text};

#[test]
fn a_cut_image_is_reported_with_the_offset() {
    let work = Work::new();
    work.done(&["pack", "root", "-o", "image", "--compress", "none"]);
    let whole = work.read("image");
    fs::write(work.path("cut"), &whole[..whole.len() / 2]).unwrap();
    let out = work.repot(&["inspect", "cut"]);
    assert_eq!(out.status.code(), Some(1));
    let error = text(&out.stderr);
    assert!(
        error.contains("cut: in the archive at byte 0")
            && error.contains("of a member's data are missing at byte"),
        "{error}"
    );
    // The part before the cut is shown.
    assert!(text(&out.stdout).contains("entries"));
}

#[test]
fn a_wrong_byte_in_a_compressed_image_is_found() {
    let work = Work::new();
    // Bytes that cannot be compressed: the middle of the image is then not in its padding.
    let noise = (0..60_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]);
    fs::write(work.path("root/noise"), noise.collect::<Vec<u8>>()).unwrap();
    for format in ["zstd", "gzip", "xz"] {
        work.done(&["pack", "root", "-o", "image", "--compress", format]);
        let mut bytes = work.read("image");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(work.path("bad"), bytes).unwrap();
        let out = work.repot(&["inspect", "--json", "bad"]);
        assert_eq!(out.status.code(), Some(1), "{format}");
        let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert!(
            found["damage"].as_str().unwrap().contains(&format!("in the {format} segment at byte 0")),
            "{found}"
        );
    }
}

#[test]
fn segments_of_several_kinds_and_zeros_between_are_read() {
    let work = Work::new();
    work.run("sh", &["-c", "cd root && find . | cpio -o -H newc --quiet > ../plain"]);
    work.run("sh", &["-c", "cd root && find . | busybox cpio -o -H newc > ../busy"]);
    work.run("sh", &["-c", "gzip -c plain > gz; zstd -qc plain > zst; xz --check=crc32 -c plain > xz"]);
    work.run("sh", &["-c", "(cat plain busy gz; head -c 5 /dev/zero; cat zst xz) > image"]);
    let found = work.inspect("image");
    let kinds: Vec<_> =
        found["segments"].as_array().unwrap().iter().map(|segment| &segment["compression"]).collect();
    assert_eq!(kinds, ["none", "none", "gzip", "zstd", "xz"]);
    assert_eq!(found["damage"], serde_json::Value::Null);
    // The same names five times over.
    assert_eq!(found["segments"][0]["entries"], found["segments"][3]["entries"]);
    assert_eq!(found["segments"][0]["entries"], found["segments"][1]["entries"]);
}

#[test]
fn a_member_before_its_directory_is_called_lost() {
    let work = Work::new();
    work.run("sh", &["-c", "cd root && printf 'bin/link\\nbin\\n' | cpio -o -H newc --quiet > ../image"]);
    let problems = work.inspect("image")["problems"].to_string();
    assert!(problems.contains("comes before its directory"), "{problems}");
    assert!(problems.contains(r#"\"/init\" does not exist"#), "{problems}");
}

#[test]
fn an_init_that_cannot_run_is_named() {
    let work = Work::new();
    fs::create_dir(work.path("root/sbin")).unwrap();
    fs::write(work.path("root/sbin/init"), "#!/bin/nosuch -x\n").unwrap();
    work.run("chmod", &["755", "root/sbin/init"]);
    work.done(&["pack", "root", "-o", "image"]);
    let problems = work.inspect("image")["problems"].to_string();
    assert!(problems.contains(r#"\"/sbin/init\" needs \"/bin/nosuch\", which does not exist"#), "{problems}");
}

#[test]
fn a_member_that_was_removed_is_missed() {
    let work = Work::new();
    work.done(&["pack", "root", "-o", "image", "--compress", "none"]);
    // Pack again without one member, but with the old end marker.
    let script = "mkdir out && cd out && cpio -id --quiet < ../image && rm bin/link && \
                  (find . ! -name .repot-end; echo .repot-end) | cpio -o -H newc --quiet > ../less";
    work.run("sh", &["-c", script]);
    assert_eq!(work.inspect("less")["end_marker"], "wrong");
}

#[test]
fn what_is_no_image_gets_one_line() {
    let work = Work::new();
    for (name, expected) in [
        ("init", "init: this is a program, not an initramfs"),
        ("root", "root is a directory, not an image"),
        ("empty", "empty is empty"),
    ] {
        fs::write(work.path("empty"), "").unwrap();
        assert!(work.fails(&["inspect", name]).contains(expected), "{name}");
        assert!(work.repot(&["inspect", name]).stdout.is_empty(), "{name}");
    }
}

/// An error in a payload names the chunk.
#[test]
fn a_payload_is_verified() {
    let work = Work::new();
    work.init_with_payload();
    work.done(&["pack", "root", "-o", "image", "--payload", "--init", "init-payload"]);
    let payload = &work.inspect("image")["payload"];
    assert_eq!((&payload["chunks"], &payload["frames"]), (&1.into(), &3.into()), "{payload}");
    let whole = work.read("image");
    let find = |words: &[u8]| whole.windows(words.len()).position(|window| window == words).unwrap();
    let places = [
        (find(b"\x28\xb5\x2f\xfd") + 20, "chunk 000000 of the payload is corrupt"),
        (find(b"\nentries=") + 9, "index:"),
    ];
    for (at, expected) in places {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(work.path("bad"), bytes).unwrap();
        let out = work.repot(&["inspect", "bad"]);
        assert_eq!(out.status.code(), Some(1));
        assert!(text(&out.stderr).contains(expected), "{expected}: {}", text(&out.stderr));
    }
}

/// The kernel replaces a symbolic link by a directory of a later segment. `/init` merges the two if a payload
/// has the link.
#[test]
fn a_directory_over_a_symbolic_link_is_noticed() {
    let work = Work::new();
    work.init_with_payload();
    work.run(
        "sh",
        &["-c", "mkdir -p root/usr/sbin && ln -s usr/sbin root/sbin && cp init-payload root/usr/sbin/init"],
    );
    work.run("sh", &["-c", "chmod 755 root/usr/sbin/init && mkdir -p more/sbin && echo x > more/sbin/tool"]);
    work.run("sh", &["-c", "cd more && echo 'sbin\nsbin/tool' | cpio -o -H newc --quiet > ../segment"]);
    let join = |image: &str| {
        let mut bytes = work.read(image);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend(work.read("segment"));
        fs::write(work.path("both"), bytes).unwrap();
        work.inspect("both")
    };
    work.done(&["pack", "root", "-o", "plain", "--compress", "none"]);
    let found = join("plain");
    let problems = found["problems"].to_string();
    assert!(problems.contains(r#"the directory \"sbin\" replaces a symbolic link"#), "{problems}");
    assert_eq!(found["init"], serde_json::Value::Null);
    work.done(&["pack", "root", "-o", "payload", "--payload", "--init", "init-payload"]);
    let found = join("payload");
    assert_eq!(found["init"], "/sbin/init");
    assert!(!found["problems"].to_string().contains("symbolic link"), "{found}");
}

/// As `/init` judges: the marker alone counts, and members behind it do not matter.
#[test]
fn an_image_is_truncated_if_its_marker_is_missing() {
    let work = Work::new();
    work.done(&["pack", "root", "-o", "image", "--compress", "none"]);
    let refused =
        |image: &str| work.inspect(image)["problems"].to_string().contains("would refuse to boot it");
    work.run("sh", &["-c", "mkdir -p more/bin && echo x > more/bin/tool"]);
    work.run(
        "sh",
        &["-c", "(cd more && find . | cpio -o -H newc --quiet) > segment; cat image segment > both"],
    );
    assert!(!refused("image") && !refused("both"));
    let list = "mkdir out && cd out && cpio -id --quiet < ../image && find . ! -name .repot-end | cpio -o -H newc --quiet";
    work.run("sh", &["-c", &format!("({list}) > unmarked")]);
    work.run("sh", &["-c", "cat unmarked segment > both"]);
    assert!(refused("unmarked") && refused("both"));
}
