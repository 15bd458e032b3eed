//! `--json`: standard output holds one JSON document and nothing else, whichever command and options.

mod support;

use serde_json::Value;
use support::{Work, text};

/// Runs a command and parses all of its standard output.
#[track_caller]
fn json(work: &Work, line: &str) -> Value {
    let out = work.repot(&line.split_whitespace().collect::<Vec<_>>());
    assert!(out.status.success(), "repot {line}: {}", text(&out.stderr));
    assert_eq!(text(&out.stderr), "", "repot {line}: warnings belong in the JSON");
    serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|error| panic!("repot {line}: {error}: {}", text(&out.stdout)))
}

/// The table of the same command has all of these words.
#[track_caller]
fn table(work: &Work, line: &str, words: &[&str]) {
    let said = work.done(&line.split_whitespace().collect::<Vec<_>>());
    assert!(said.lines().next().is_some_and(|line| line.starts_with("image ")), "{said}");
    for word in words {
        assert!(said.contains(word), "repot {line}: no {word:?} in {said}");
    }
}

#[test]
fn every_command_with_json_prints_nothing_else() {
    let work = Work::new();
    work.init_with_payload();
    for line in [
        "pack root -o image --json",
        "pack root -o image.cpio --payload --init init-payload --json",
        "inspect image --json",
        "inspect image.cpio --json",
        "plan --json",
    ] {
        assert!(json(&work, line).is_object(), "repot {line}");
    }
    work.run("sh", &["-c", "cd root && find . | cpio -o -H newc --quiet > ../initramfs"]);
    assert!(json(&work, "append initramfs -o appended --rdinit /repot --json").is_object());
    if rustix::process::geteuid().is_root() {
        assert!(json(&work, "rehearse root --json").is_array());
    }
}

#[test]
fn pack_and_inspect_agree_about_a_payload() {
    let work = Work::new();
    work.init_with_payload();
    let pack = "pack root -o image --payload --init init-payload";
    let packed = json(&work, &format!("{pack} --json"));
    let found = json(&work, "inspect image --json");
    for key in ["digest", "entries", "bytes", "largest", "compressed", "chunks", "frames"] {
        assert_eq!(packed["payload"][key], found["payload"][key], "{key}");
    }
    assert_eq!(packed["bytes"], found["bytes"]);
    assert_eq!(packed["ram"], found["ram"]);
    assert_eq!(packed["entries"], packed["payload"]["entries"]);
    assert!(packed["payload"]["ram_without"]["ramfs"].as_u64() >= packed["ram"]["ramfs"].as_u64());
    assert!(packed["warnings"][0].as_str().unwrap().starts_with("no init can run"), "{packed}");
    let digest = packed["payload"]["digest"].as_str().unwrap();
    table(&work, pack, &["outside the payload", "without --payload", digest]);
}

#[test]
fn append_reports_its_segment() {
    let work = Work::new();
    work.run("sh", &["-c", "cd root && find . | cpio -o -H newc --quiet | gzip > ../initramfs"]);
    let append = "append initramfs -o image --rdinit /repot";
    let appended = json(&work, &format!("{append} --json"));
    let found = json(&work, "inspect image --json");
    let last = found["segments"].as_array().unwrap().last().unwrap();
    assert_eq!(appended["offset"], last["offset"]);
    assert_eq!(appended["compression"], "gzip");
    assert_eq!((&appended["image"], &appended["rdinit"]), (&"image".into(), &"/repot".into()));
    table(&work, append, &["rdinit=/repot", &format!("at byte {}, gzip", last["offset"])]);
}

#[test]
fn an_image_on_standard_output_moves_the_summary_to_standard_error() {
    let work = Work::new();
    work.init_with_payload();
    work.run("sh", &["-c", "cd root && find . | cpio -o -H newc --quiet > ../initramfs"]);
    for line in [
        "pack root -o - --json",
        "pack root -o - --json --payload --init init-payload",
        "append initramfs -o - --rdinit /repot --json",
    ] {
        let out = work.repot(&line.split_whitespace().collect::<Vec<_>>());
        assert!(out.status.success(), "repot {line}: {}", text(&out.stderr));
        let summary: Value = serde_json::from_slice(&out.stderr).unwrap();
        assert_eq!(summary["image"], "-", "repot {line}");
        std::fs::write(work.path("image"), &out.stdout).unwrap();
        assert_eq!(work.inspect("image")["damage"], Value::Null, "repot {line}");
    }
}
