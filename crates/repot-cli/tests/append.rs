//! The command `repot append`: what the kernel would make of both segments. The first must not change.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::{Work, text};

/// An initramfs of another tool, with an `/init` that is a hard link to its shell.
fn initramfs(work: &Work, compress: &str) {
    fs::write(work.path("root/init"), "#!/bin/tool\n").unwrap();
    fs::set_permissions(work.path("root/init"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::hard_link(work.path("root/init"), work.path("root/bin/shell")).unwrap();
    work.run(
        "sh",
        &["-c", &format!("(cd root && find . | cpio -o -H newc --quiet) | {compress} > initramfs")],
    );
}

/// The last segment of an image.
fn last_segment(work: &Work, image: &str) -> Vec<u8> {
    let found = work.inspect(image);
    let offset = found["segments"].as_array().unwrap().last().unwrap()["offset"].as_u64().unwrap();
    work.read(image)[usize::try_from(offset).unwrap()..].to_vec()
}

#[test]
fn the_init_of_the_image_runs_next_and_its_hard_links_keep_their_contents() {
    let work = Work::new();
    for (compress, expected) in
        [("cat", "none"), ("gzip", "gzip"), ("zstd -q", "zstd"), ("xz --check=crc32", "xz")]
    {
        fs::remove_dir_all(work.path("root")).unwrap();
        fs::create_dir_all(work.path("root/bin")).unwrap();
        initramfs(&work, compress);
        work.done(&["append", "initramfs", "-o", "image", "--config", "size=70%"]);
        let before = work.read("initramfs");
        assert!(work.read("image").starts_with(&before), "{compress}");
        let found = work.inspect("image");
        let last = found["segments"].as_array().unwrap().last().unwrap();
        assert_eq!(last["compression"], expected);
        assert_eq!(last["offset"].as_u64().unwrap() % 4, 0);
        assert_eq!((&found["repot"], &found["end_marker"]), (&true.into(), &"whole".into()), "{found}");

        fs::write(work.path("segment"), last_segment(&work, "image")).unwrap();
        assert_eq!(
            text(&work.run("bsdtar", &["-xOf", "segment", "etc/repot.conf"])),
            "init=/init.real\nsize=70%\n"
        );
        assert_eq!(text(&work.run("bsdtar", &["-xOf", "segment", "init.real"])), "#!/bin/tool\n");
        let listing = text(&work.run("bsdtar", &["-tvf", "segment"]));
        let inits: Vec<_> = listing
            .lines()
            .filter(|line| line.split("2 init").count() > 1 || line.contains(" init"))
            .collect();
        // The symbolic link makes the kernel remove the old file, so its hard links keep their contents.
        assert!(
            inits.iter().any(|line| line.starts_with("lrwxrwxrwx") && line.contains("init -> init.real")),
            "{listing}"
        );
        assert!(listing.contains("-rwxr-x---"), "{listing}");
    }
}

#[test]
fn with_rdinit_the_image_keeps_its_init() {
    let work = Work::new();
    initramfs(&work, "cat");
    work.done(&["append", "initramfs", "-o", "image", "--rdinit", "/opt/repot"]);
    fs::write(work.path("segment"), last_segment(&work, "image")).unwrap();
    let names = text(&work.run("bsdtar", &["-tf", "segment"]));
    assert!(names.contains("opt/repot\n") && !names.lines().any(|name| name == "init"), "{names}");
    assert_eq!(text(&work.run("bsdtar", &["-xOf", "segment", "etc/repot.conf"])), "init=/init\n");
}

#[test]
fn images_that_cannot_be_extended_are_refused() {
    let work = Work::new();
    initramfs(&work, "lz4 -l -q");
    let error = work.fails(&["append", "initramfs", "-o", "image"]);
    assert!(error.contains("ends with an lz4 segment"), "{error}");
    fs::write(work.path("initramfs"), "?").unwrap();
    assert!(work.fails(&["append", "initramfs", "-o", "image"]).contains("neither a cpio archive"));
    fs::write(work.path("initramfs"), "").unwrap();
    assert!(work.fails(&["append", "initramfs", "-o", "image"]).contains("is empty"));
    assert!(!work.path("image").exists());
    work.done(&["pack", "root", "-o", "packed"]);
    assert!(
        work.fails(&["append", "packed", "-o", "image"])
            .contains("/init is already repot, and --config changes nothing")
    );
    work.done(&["append", "packed", "-o", "image", "--config", "mode=bind"]);
}
