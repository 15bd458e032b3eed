//! What scripts rely on: exit codes, JSON, no progress bar without a terminal.

mod support;

use std::fs;

use support::{Work, text};

#[test]
fn exit_codes() {
    let work = Work::new();
    work.run(
        "sh",
        &[
            "-c",
            "printf '#!/bin/tool\\n' > root/init && (cd root && find . | cpio -o -H newc --quiet) > initramfs && rm root/init",
        ],
    );
    fs::write(work.path("damaged"), "070701 and then nothing").unwrap();
    for (code, line) in [
        (0, "--help"),
        (0, "--version"),
        (0, "help pack"),
        (0, "pack root -o image"),
        (0, "append initramfs -o appended --rdinit /repot"),
        (0, "inspect image"),
        (0, "plan"),
        (0, "man"),
        (0, "completions fish"),
        (1, "pack nothing -o image"),
        (1, "pack damaged -o image"),
        (1, "pack root -o nothing/image"),
        (1, "append nothing -o image"),
        (1, "append damaged -o image"),
        (1, "inspect nothing"),
        (1, "inspect damaged"),
        (1, "boot nothing"),
        (1, "boot image --kernel nothing"),
        (1, "rehearse nothing"),
        (2, ""),
        (2, "dance"),
        (2, "pack"),
        (2, "pack root"),
        (2, "pack root -o image --compress zip"),
        (1, "boot damaged --kernel init"),
        (0, "pack root -o image.xz --dry-run"),
        (2, "pack root -o image.gz --level 12"),
        (2, "pack root -o image --config size=700%"),
        (2, "pack root -o image --level 30"),
        (2, "pack root -o image --config size=lots"),
        (2, "pack root -o image --config mode"),
        (2, "append initramfs"),
        (2, "append initramfs -o image --rdinit repot"),
        (2, "inspect"),
        (2, "inspect image image"),
        (2, "boot image --memory 512"),
        (2, "boot image --cpus many"),
        (2, "plan here"),
        (2, "rehearse root --memory lots"),
        (2, "man dance"),
        (2, "completions dash"),
    ] {
        let out = work.repot(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(out.status.code(), Some(code), "repot {line}: {}", text(&out.stderr));
        let said = text(&out.stderr).lines().any(|line| !line.starts_with("repot: warning: "));
        assert_eq!(said, code != 0, "repot {line}: {}", text(&out.stderr));
    }
}

#[test]
fn pack_inspect_and_rehearse_print_json() {
    let work = Work::new();
    let packed: serde_json::Value =
        serde_json::from_slice(&work.repot(&["pack", "root", "-o", "image", "--json"]).stdout).unwrap();
    let found = work.inspect("image");
    // pack does not count the end marker.
    assert_eq!(packed["entries"].as_u64().unwrap() + 1, found["entries"].as_u64().unwrap());
    assert_eq!((&packed["compression"], &packed["image"]), (&"zstd".into(), &"image".into()));
    assert_eq!(packed["compressed"], found["bytes"]);
    assert!(packed["warnings"][0].as_str().unwrap().starts_with("no init can run"), "{packed}");
    assert!(packed["ram"]["ramfs"].as_u64().unwrap() >= packed["ram"]["after"].as_u64().unwrap());
    if rustix::process::geteuid().is_root() {
        let moved: serde_json::Value =
            serde_json::from_str(&work.done(&["rehearse", "--json", "root"])).unwrap();
        let from: Vec<_> =
            moved.as_array().unwrap().iter().map(|one| one["from"].as_str().unwrap()).collect();
        assert_eq!(from, ["ramfs", "tmpfs"]);
        assert_eq!(
            (&moved[0]["differences"], &moved[1]["old_root_empty"]),
            (&serde_json::json!([]), &true.into())
        );
    }
}

#[test]
fn the_image_on_standard_output_is_alone_there() {
    let work = Work::new();
    work.done(&["pack", "root", "-o", "image"]);
    let out = work.repot(&["pack", "root", "-o", "-"]);
    assert!(out.stdout == work.read("image"));
    assert!(text(&out.stderr).contains("RAM to boot"));
}

#[test]
fn progress_is_for_terminals() {
    let work = Work::new();
    fs::create_dir(work.path("root/sbin")).unwrap();
    fs::copy(work.path("init"), work.path("root/sbin/init")).unwrap();
    work.run("sh", &["-c", "chmod 755 root/sbin/init; head -c 30M /dev/urandom > root/noise"]);
    let out = work.repot(&["pack", "root", "-o", "image"]);
    assert_eq!(text(&out.stderr), "");
    // script(1) gives the program a terminal.
    let line = format!("REPOT_INIT=init {} pack root -o image", env!("CARGO_BIN_EXE_repot"));
    let seen = text(&work.run("script", &["-qec", &line, "/dev/null"]));
    assert!(seen.contains("MiB/30.") && seen.contains("/s"), "{seen:?}");
}
