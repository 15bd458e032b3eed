//! The programs as they are released: their size, how they are linked, and the init inside the tool.

use std::path::Path;
use std::process::Command;

use repot_harness::build::{self, Arch};
use repot_harness::tool::Tool;
use repot_harness::{command, place};
use repot_tests::programs;

/// The init is part of every image, and the kernel unpacks it before anything else can run.
const INIT_LIMIT: u64 = 300_000;
/// The limit of the init that can also unpack payloads.
const PAYLOAD_LIMIT: u64 = 700_000;

/// The limit of the runner, which stays in memory as long as the machine runs.
const RUNNER_LIMIT: u64 = 120_000;

#[test]
fn released_inits_are_below_their_size_limits() {
    for (init, limit) in [
        (programs::repot_init(), INIT_LIMIT),
        (programs::repot_init_payload(), PAYLOAD_LIMIT),
        (programs::repot_run(), RUNNER_LIMIT),
    ] {
        let size = init.metadata().expect("metadata").len();
        assert!(size < limit, "{} has {size} bytes, the limit is {limit}", init.display());
    }
}

#[test]
fn released_inits_are_static_and_stripped() {
    for init in [programs::repot_init(), programs::repot_init_payload(), programs::repot_run()] {
        assert_eq!(build::linkage(init).expect("an ELF file"), "static-pie");
        let file = command::read(Command::new("file").arg("--brief").arg(init)).expect("file");
        assert!(file.contains("static-pie linked") && file.contains("stripped"), "file prints: {file}");
    }
}

/// Alone in a directory, where it cannot find an init, the released tool packs the released init.
#[test]
fn released_tool_is_static_and_has_the_init_inside() {
    let tool = build::tool(&[Arch::X86_64]).expect("the tool");
    assert_eq!(build::linkage(&tool).expect("an ELF file"), "static-pie");
    let alone = place::fresh("alone").expect("a directory");
    std::fs::create_dir_all(alone.join("root")).expect("a root");
    std::fs::copy(&tool, alone.join("tool")).expect("a copy of the tool");
    let words = ["pack", "root", "-o", "image", "--compress", "none"];
    Tool::at(alone.join("tool")).run(&alone, &words).expect("repot pack");
    let read = |path: &Path| std::fs::read(path).expect("readable");
    let (image, init) = (read(&alone.join("image")), read(&build::init(Arch::X86_64).expect("the init")));
    // In a plain newc archive the contents of /init, the first program, follow its name.
    let start = image[..4096.min(image.len())].windows(4).position(|four| four == b"\x7fELF");
    let packed = start.and_then(|start| image.get(start..start + init.len()));
    assert!(packed == Some(&init[..]), "/init in the image is not the released init");
}
