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
    for (compress, expected) in [
        ("cat", "none"),
        ("gzip", "gzip"),
        ("zstd -q", "zstd"),
        ("xz --check=crc32", "xz"),
        ("xz --format=lzma", "lzma"),
        ("bzip2", "bzip2"),
    ] {
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
            "chain=/init.real\nsize=70%\n"
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
fn modules_are_added_and_an_image_of_repot_gets_them_too() {
    let work = Work::new();
    work.kernel_modules("6.12.1", "6.12.1");
    initramfs(&work, "cat");
    let said = work.done(&["append", "initramfs", "-o", "first", "--modules", "kernels/6.12.1"]);
    assert!(said.contains("6.12.1: zsmalloc.ko, lz4_compress.ko, zram.ko"), "{said}");
    assert!(said.contains("--modules without zram="), "{said}");
    work.done(&["append", "initramfs", "-o", "plain"]);
    let more = ["append", "plain", "-o", "second", "--modules", "kernels/6.12.1", "--config", "zram=auto"];
    let said = work.done(&more);
    assert!(!said.contains("--modules without zram="), "{said}");
    for image in ["first", "second"] {
        fs::write(work.path("segment"), last_segment(&work, image)).unwrap();
        let read = |name: &str| {
            text(&work.run("bsdtar", &["-xOf", "segment", &format!(".repot-modules/6.12.1/{name}")]))
        };
        assert_eq!(read("zram.order"), "zsmalloc.ko\nlz4_compress.ko\nzram.ko\n");
        assert!(read("zsmalloc.ko").starts_with("\x7fELFzsmalloc"), "{image}");
        assert_eq!(work.inspect(image)["end_marker"], "whole", "{image}");
    }
    // This machine's, which has none for its kernel, and not those of an empty root.
    let release = text(&work.run("uname", &["-r"]));
    if !std::path::Path::new("/lib/modules").join(release.trim()).join("modules.dep").exists() {
        let said = work.fails(&["append", "initramfs", "-o", "third", "--modules", "auto"]);
        assert!(said.contains("--modules DIR"), "{said}");
        assert!(!work.path("third").exists());
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
    assert_eq!(text(&work.run("bsdtar", &["-xOf", "segment", "etc/repot.conf"])), "chain=/init\n");
}

#[test]
fn images_that_cannot_be_extended_are_refused() {
    let work = Work::new();
    fs::write(work.path("initramfs"), "?").unwrap();
    assert!(work.fails(&["append", "initramfs", "-o", "image"]).contains("neither a cpio archive"));
    fs::write(work.path("initramfs"), "").unwrap();
    assert!(work.fails(&["append", "initramfs", "-o", "image"]).contains("is empty"));
    assert!(!work.path("image").exists());
    work.done(&["pack", "root", "-o", "packed"]);
    assert!(
        work.fails(&["append", "packed", "-o", "image"])
            .contains("/init is already repot, and neither --config nor --modules adds anything")
    );
    work.done(&["append", "packed", "-o", "image", "--config", "mode=bind"]);
}

/// The size of an image decides whether `cat image overlay.cpio` works.
#[test]
fn an_image_ends_at_a_block_and_an_archive_can_follow() {
    let work = Work::new();
    work.run("sh", &["-c", "echo second > second; echo second | cpio -o -H newc --quiet > overlay"]);
    for compress in ["zstd", "gzip", "xz", "lz4", "none"] {
        // The sizes differ in every remainder.
        for size in 0..7 {
            fs::write(work.path("root/bin/tool"), "x".repeat(size * 13)).unwrap();
            work.done(&["pack", "root", "-o", "packed", "-c", compress]);
            fs::write(work.path("both"), [work.read("packed"), work.read("overlay")].concat()).unwrap();
            assert_eq!(work.read("packed").len() % 512, 0, "{compress} {size}");
            let found = work.inspect("both");
            assert_eq!(found["segments"].as_array().unwrap().len(), 2, "{compress} {size}: {found}");
        }
        let image = fs::File::open(work.path("packed")).unwrap();
        if compress != "lz4" && compress != "none" {
            let mut tool = std::process::Command::new(compress);
            let out = tool.arg("-dc").stdin(image).output().unwrap();
            assert!(out.status.success() && out.stderr.is_empty(), "{compress}: {}", text(&out.stderr));
        }
    }
}

#[test]
fn a_segment_follows_lz4_behind_zeros() {
    let work = Work::new();
    initramfs(&work, "lz4 -l -q");
    let out = work.done(&["append", "initramfs", "-o", "image"]);
    assert!(out.contains("warning: the new segment follows an lz4 segment"), "{out}");
    let (before, found) = (work.read("initramfs").len(), work.inspect("image"));
    let offset = usize::try_from(found["segments"][1]["offset"].as_u64().unwrap()).unwrap();
    assert!(work.read("image")[before..offset].starts_with(&[0; 4]));
    assert_eq!((&found["repot"], &found["end_marker"]), (&true.into(), &"whole".into()), "{found}");
    assert_eq!(work.read("image").len() % 512, 0);
}

#[test]
fn a_boot_configuration_stays_at_the_end() {
    let work = Work::new();
    initramfs(&work, "gzip");
    let text = b"kernel.quiet\n\0\0\0";
    let sum: u32 = text.iter().map(|byte| u32::from(*byte)).sum();
    let size = u32::try_from(text.len()).unwrap();
    let bootconfig = [&text[..], &size.to_le_bytes(), &sum.to_le_bytes(), b"#BOOTCONFIG\n"].concat();
    fs::write(work.path("with"), [work.read("initramfs"), bootconfig.clone()].concat()).unwrap();
    work.done(&["append", "with", "-o", "image"]);
    assert!(work.read("image").ends_with(&bootconfig));
    for image in ["with", "image"] {
        assert_eq!(work.inspect(image)["bootconfig"], u64::try_from(bootconfig.len()).unwrap(), "{image}");
    }
    let found = work.inspect("image");
    assert_eq!((found["segments"].as_array().unwrap().len(), &found["repot"]), (2, &true.into()));
}

#[test]
fn a_payload_image_gets_an_init_that_unpacks_payloads() {
    let work = Work::new();
    work.init_with_payload();
    fs::write(work.path("root/init"), "#!/bin/tool\n").unwrap();
    work.done(&["pack", "root", "--payload", "--init", "init-payload", "-o", "packed"]);
    // The init of the environment has no payload support.
    let error = work.fails(&["append", "packed", "-o", "image", "--config", "wipe=yes", "--init", "init"]);
    assert!(error.contains("is not a repot init that unpacks payloads"), "{error}");
    work.done(&["append", "packed", "-o", "image", "--config", "wipe=yes", "--init", "init-payload"]);
    // What an earlier repot did.
    fs::create_dir(work.path("over")).unwrap();
    fs::copy(work.path("init"), work.path("over/init")).unwrap();
    fs::set_permissions(work.path("over/init"), fs::Permissions::from_mode(0o755)).unwrap();
    work.run("sh", &["-c", "cp packed wrong; (cd over && echo init | cpio -o -H newc --quiet) >> wrong"]);
    let problem =
        |image: &str| work.inspect(image)["problems"].to_string().contains("/init cannot unpack it");
    assert!(!problem("image") && problem("wrong"));
}

#[test]
fn an_init_of_any_size_is_kept() {
    let work = Work::new();
    let mut init = work.read("init")[..64].to_vec();
    init.resize(17 << 20, 7);
    fs::write(work.path("root/init"), &init).unwrap();
    fs::set_permissions(work.path("root/init"), fs::Permissions::from_mode(0o755)).unwrap();
    work.run("sh", &["-c", "(cd root && find . | cpio -o -H newc --quiet) | gzip > initramfs"]);
    work.done(&["append", "initramfs", "-o", "image"]);
    let found = work.inspect("image");
    assert_eq!(
        (&found["init"], &found["problems"].to_string().contains("16 MiB")),
        (&"/init.real".into(), &false)
    );
}

/// `--config init=` says what repot executes, so the image's own init is not what comes next.
#[test]
fn an_init_that_is_named_replaces_the_chain() {
    let work = Work::new();
    initramfs(&work, "cat");
    work.done(&["append", "initramfs", "-o", "image", "--config", "init=/bin/shell"]);
    fs::write(work.path("segment"), last_segment(&work, "image")).unwrap();
    assert_eq!(text(&work.run("bsdtar", &["-xOf", "segment", "etc/repot.conf"])), "init=/bin/shell\n");
}

/// `/init` finds `/etc/repot.conf` through links, and so does `append`.
#[test]
fn settings_are_kept_wherever_the_file_is() {
    for (name, layout) in [
        (
            "a linked directory",
            "mkdir -p root/usr/etc && ln -s usr/etc root/etc && echo size=77% > root/usr/etc/repot.conf",
        ),
        (
            "an absolute link",
            "mkdir -p root/opt root/etc && echo size=77% > root/opt/x-repot.conf && ln -s /opt/x-repot.conf root/etc/repot.conf",
        ),
        (
            "a hard link",
            "mkdir -p root/etc && echo size=77% > root/etc/a && ln root/etc/a root/etc/repot.conf",
        ),
    ] {
        let work = Work::new();
        work.run("sh", &["-c", layout]);
        initramfs(&work, "gzip -c");
        work.done(&["append", "initramfs", "-o", "image", "--config", "wipe=yes"]);
        work.done(&["pack", "image", "-o", "packed", "-c", "none"]);
        let script =
            "mkdir x && cd x && cpio -idm --quiet --no-absolute-filenames < ../packed; cat etc/repot.conf";
        let found = text(&work.run("sh", &["-c", script]));
        assert_eq!(found, "size=77%\nchain=/init.real\nwipe=yes\n", "{name}");
        // The same from the directory, into an image and a payload.
        for payload in [false, true] {
            work.init_with_payload();
            let mut args =
                vec!["pack", "root", "-o", "direct", "--config", "wipe=yes", "--init", "init-payload"];
            args.push(if payload { "--payload" } else { "--compress=none" });
            let packed = work.repot(&args);
            if payload && name == "a linked directory" {
                assert!(text(&packed.stderr).contains("/etc is a symbolic link"), "{}", text(&packed.stderr));
                continue;
            }
            assert!(packed.status.success(), "{name}: {}", text(&packed.stderr));
            let script = "rm -rf y && mkdir y && cd y && cpio -idm --quiet --no-absolute-filenames < ../direct; cat \
                          etc/repot.conf";
            let found = text(&work.run("sh", &["-c", script]));
            assert!(found.starts_with("size=77%\n") && found.ends_with("wipe=yes\n"), "{name}: {found}");
        }
    }
    let work = Work::new();
    work.run(
        "sh",
        &["-c", "mkdir root/etc && echo size=77% > root/etc/other && ln -s other root/etc/repot.conf"],
    );
    initramfs(&work, "cat");
    let error = work.fails(&["append", "initramfs", "-o", "image", "--config", "wipe=yes"]);
    assert!(error.contains("/etc/repot.conf is a link to a file that is not called repot.conf"), "{error}");
    assert!(work.inspect("initramfs").to_string().contains("its settings are not shown"));
}

/// A later file without settings takes back those of an earlier one.
#[test]
fn an_empty_file_has_no_settings() {
    let work = Work::new();
    let script =
        "mkdir root/etc over over/etc && echo size=77% > root/etc/repot.conf && : > over/etc/repot.conf";
    work.run("sh", &["-c", script]);
    initramfs(&work, "cat");
    work.run("sh", &["-c", "(cd over && find . | cpio -o -H newc --quiet) >> initramfs"]);
    work.done(&["append", "initramfs", "-o", "image", "--config", "wipe=yes"]);
    fs::write(work.path("segment"), last_segment(&work, "image")).unwrap();
    let text = text(&work.run("sh", &["-c", "cpio -i --to-stdout --quiet etc/repot.conf < segment"]));
    assert!(text.ends_with("chain=/init.real\nwipe=yes\n") && !text.contains("size"), "{text}");
}

/// An image that was made of `docker export` without `pack` has an empty file at /dev/console.
#[test]
fn what_is_no_device_node_is_replaced() {
    let work = Work::new();
    fs::write(work.path("root/dev/console"), "").unwrap();
    initramfs(&work, "cat");
    let said = work.done(&["append", "initramfs", "-o", "image"]);
    assert!(said.contains("/dev/console was an empty file: replaced with the device 5:1"), "{said}");
    fs::write(work.path("segment"), last_segment(&work, "image")).unwrap();
    let listing = text(&work.run("sh", &["-c", "cpio -tvn --quiet < segment"]));
    assert!(listing.contains("5,   1"), "{listing}");
    assert!(!work.inspect("image")["problems"].to_string().contains("/dev/console"));
}
