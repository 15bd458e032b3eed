//! The init of an image is that of the root's architecture, or there is an error. `boot` chooses its machine
//! by the image and the kernel.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use support::{Work, text};

/// Folders, and class, byte order and machine in the ELF header of their programs.
const ARCHES: [(&str, [u8; 2], u16); 8] = [
    ("x86_64", [2, 1], 62),
    ("aarch64", [2, 1], 183),
    ("i686", [1, 1], 3),
    ("armv7", [1, 1], 40),
    ("riscv64", [2, 1], 243),
    ("ppc64le", [2, 1], 21),
    ("s390x", [2, 2], 22),
    ("loongarch64", [2, 1], 258),
];

fn elf((name, [class, order], number): (&str, [u8; 2], u16)) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order, 1]);
    let number = if order == 2 { number.to_be_bytes() } else { number.to_le_bytes() };
    bytes[18..20].copy_from_slice(&number);
    bytes.extend(format!("etc/repot.conf {name}\nrepot-features: chain manifests payload;\n").bytes());
    bytes
}

fn program(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// A folder as `target/dist`, with the programs of every architecture but `without`.
fn folder(work: &Work, without: &str) {
    for arch in ARCHES.into_iter().filter(|(name, ..)| *name != without) {
        for file in ["init", "init-payload", "run"] {
            let mut bytes = elf(arch);
            bytes.extend(file.bytes());
            program(&work.path("dist").join(arch.0).join(file), &bytes);
        }
    }
}

/// Runs the command with these variables and none of the usual ones.
fn with(work: &Work, variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_repot"));
    command.args(args).current_dir(work.dir.path());
    for name in ["REPOT_INIT", "REPOT_INIT_PAYLOAD", "REPOT_RUN", "REPOT_KERNEL", "SOURCE_DATE_EPOCH"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

#[track_caller]
fn fails(work: &Work, variables: &[(&str, &str)], args: &[&str]) -> String {
    let out = with(work, variables, args);
    assert_eq!(out.status.code(), Some(1), "{args:?}: {}", text(&out.stderr));
    text(&out.stderr)
}

/// Whether an uncompressed image contains the program.
fn holds(work: &Work, image: &str, arch: &str, file: &str) -> bool {
    let program = work.read(Path::new("dist").join(arch).join(file));
    work.read(image).windows(program.len()).any(|window| window == program)
}

#[test]
fn the_init_is_that_of_the_root() {
    let work = Work::new();
    folder(&work, "");
    for arch in ARCHES {
        // Through a script, as OpenRC and others have one.
        program(&work.path("root/sbin/init"), b"#!/bin/shell -e\n");
        program(&work.path("root/bin/shell"), &elf(arch));
        for (extra, file) in [(&[][..], "init"), (&["--payload"], "init-payload")] {
            let pack =
                ["pack", "root", "-o", "image", "--compress", if extra.is_empty() { "none" } else { "zstd" }];
            let out = with(&work, &[("REPOT_INIT", "dist")], &[&pack, extra].concat());
            assert!(out.status.success(), "{}", text(&out.stderr));
            assert!(holds(&work, "image", arch.0, file), "{} {file}", arch.0);
        }
    }
    // append finds it by the image's own init.
    program(&work.path("root/init"), b"#!/bin/shell\n");
    program(&work.path("root/bin/shell"), &elf(ARCHES[6]));
    work.run("sh", &["-c", "cd root && find . | cpio --quiet -o -H newc > ../plain"]);
    let out = with(&work, &[("REPOT_INIT", "dist")], &["append", "plain", "-o", "image"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(holds(&work, "image", "s390x", "init"));
}

#[test]
fn a_payload_gets_the_init_of_its_variable_else_of_the_other() {
    let work = Work::new();
    folder(&work, "");
    program(&work.path("root/sbin/init"), &elf(ARCHES[0]));
    for name in ["one", "two"] {
        program(&work.path(name), &[elf(ARCHES[0]), name.into()].concat());
    }
    let plain = [&elf(ARCHES[0])[..64], b"etc/repot.conf\nrepot-features: chain manifests;\n"].concat();
    program(&work.path("plain"), &plain);
    let payload = ["pack", "root", "-o", "image", "--payload"];
    let holds = |name: &str| {
        let program = work.read(name);
        work.read("image").windows(program.len()).any(|window| window == program)
    };
    let (general, own) = ("REPOT_INIT", "REPOT_INIT_PAYLOAD");
    for (variables, expected) in [
        (&[(general, "one")][..], "one"),
        (&[(own, "two")], "two"),
        (&[(general, "one"), (own, "two")], "two"),
        (&[(general, "plain"), (own, "two")], "two"),
        (&[(general, "one"), (own, "")], "one"),
        (&[(general, "plain"), (own, "dist")], "dist/x86_64/init-payload"),
    ] {
        let out = with(&work, variables, &payload);
        assert!(out.status.success(), "{variables:?}: {}", text(&out.stderr));
        assert!(holds(expected), "{variables:?}: not {expected}");
    }
    // One that cannot unpack is an error where it was named for payloads, and is never taken otherwise.
    fs::remove_file(work.path("image")).unwrap();
    let error = fails(&work, &[(own, "plain")], &payload);
    assert!(error.contains("plain is not a repot init that unpacks payloads"), "{error}");
    assert!(!work.path("image").exists());
    let out = with(&work, &[(general, "plain")], &payload);
    assert!(!out.status.success() || !holds("plain"));
    // An image without a payload has the other one.
    let whole = ["pack", "root", "-o", "image", "--compress", "none"];
    let out = with(&work, &[(general, "one"), (own, "two")], &whole);
    assert!(out.status.success() && holds("one") && !holds("two"), "{}", text(&out.stderr));
}

#[test]
fn memory_is_that_of_the_kernels_pages() {
    let work = Work::new();
    folder(&work, "");
    let pack = |arch: usize| {
        program(&work.path("root/sbin/init"), &elf(ARCHES[arch]));
        let words = ["pack", "root", "-o", "image", "--json", "--compress", "none"];
        let out = with(&work, &[("REPOT_INIT", "dist")], &words);
        assert!(out.status.success(), "{}", text(&out.stderr));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    let inspect = |more: &[&str]| {
        let out = with(&work, &[], &[&["inspect", "image"], more].concat());
        (out.status.code(), text(&out.stdout) + &text(&out.stderr))
    };
    for (arch, usual, others) in
        [(0, 4, ""), (1, 4, "16k or 64k"), (5, 64, "4k"), (6, 4, ""), (7, 16, "4k or 64k")]
    {
        assert_eq!(pack(arch)["page"], usual << 10);
        let (_, shown) = inspect(&[]);
        let row = format!("{usual}k (other kernels: --page-size {others})");
        assert_eq!(
            (shown.contains("page size"), shown.contains(&row)),
            (!others.is_empty(), !others.is_empty())
        );
    }
    fs::create_dir(work.path("root/many")).unwrap();
    (0..4000).for_each(|number| fs::write(work.path(&format!("root/many/{number}")), "x").unwrap());
    let packed = pack(1);
    let need = |size: &str| {
        let found = inspect(&["--json", "--page-size", size]).1;
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        found["ram"]["tmpfs"].as_u64().unwrap() >> 20
    };
    assert_eq!(packed["ram"]["tmpfs"].as_u64().unwrap() >> 20, need("4k"));
    assert!(need("4k") + 50 < need("16K") && need("16k") + 300 < need("64KiB"), "{}", need("16k"));
    let shown = inspect(&["--page-size", "16k"]).1;
    assert!(shown.lines().any(|line| line.starts_with("page size") && line.ends_with(" 16k")), "{shown}");
    assert_eq!(inspect(&["--page-size", "8k"]).0, Some(2));
    // `boot` asks the kernel. QEMU is not run: without a PATH, its name is in the message.
    for (flags, memory) in [(0x0a, "with 512 MiB".to_owned()), (0x0e, format!("with {} MiB", need("64k")))] {
        let mut kernel = vec![0; 0x1_0100];
        kernel[0x38..0x3c].copy_from_slice(b"ARM\x64");
        kernel[0x18] = flags;
        fs::write(work.path("kernel"), kernel).unwrap();
        let error = fails(&work, &[("PATH", "")], &["boot", "image", "--kernel", "kernel"]);
        assert!(error.contains(&memory), "{error}");
    }
    pack(0);
    let (code, error) = inspect(&["--page-size", "16k"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--page-size 16k: kernels for x86_64 have pages of 4k"), "{error}");
}

#[test]
fn without_an_init_for_the_root_nothing_is_packed() {
    let work = Work::new();
    folder(&work, "riscv64");
    program(&work.path("root/sbin/init"), &elf(ARCHES[4]));
    let pack = ["pack", "root", "-o", "image"];
    let error = fails(&work, &[("REPOT_INIT", "dist")], &pack);
    assert!(error.contains("REPOT_INIT=dist has no riscv64/init"), "{error}");
    assert!(error.contains("cargo xtask dist --arch riscv64"), "{error}");
    // A file for another architecture.
    let error = fails(&work, &[("REPOT_INIT", "dist/x86_64/init")], &pack);
    assert!(error.contains("is for x86_64, but the root is for riscv64"), "{error}");
    assert!(!work.path("image").exists());
    // Whoever names the file decides, and is warned.
    let out = with(&work, &[], &["pack", "root", "-o", "image", "--init", "dist/x86_64/init"]);
    let warned = text(&out.stderr);
    assert!(out.status.success() && warned.contains("riscv, but /init is for x86_64"), "{warned}");
    // An architecture that repot is not released for.
    program(&work.path("root/sbin/init"), &elf(("sparc64", [2, 2], 43)));
    let error = fails(&work, &[("REPOT_INIT", "dist")], &pack);
    assert!(error.contains("the root is for ELF machine 43, for which repot has no init"), "{error}");
}

#[test]
fn init_writes_the_program_of_an_architecture() {
    let work = Work::new();
    folder(&work, "armv7");
    let dist = [("REPOT_INIT", "dist")];
    for (words, file) in
        [(&[][..], "s390x/init"), (&["--payload"], "s390x/init-payload"), (&["--run"], "s390x/run")]
    {
        let out = with(&work, &dist, &[&["init", "-o", "out", "--arch", "s390x"], words].concat());
        assert!(out.status.success(), "{}", text(&out.stderr));
        assert_eq!(work.read("out"), work.read(Path::new("dist").join(file)));
        assert_eq!(fs::metadata(work.path("out")).unwrap().permissions().mode() & 0o777, 0o755);
    }
    assert!(fails(&work, &dist, &["init", "-o", "out", "--arch", "armv7"]).contains("has no armv7/init"));
    let out = with(&work, &dist, &["init", "-o", "out", "--arch", "vax"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("known architectures: x86_64, aarch64"));
}

/// QEMU is not run: without a PATH, its name is in the message.
#[test]
fn boot_plays_the_machine_of_the_kernel() {
    let work = Work::new();
    folder(&work, "");
    let kernel = |parts: &[(usize, &[u8])]| {
        let mut bytes = vec![0; 0x1_0100];
        parts.iter().for_each(|(at, part)| bytes[*at..at + part.len()].copy_from_slice(part));
        fs::write(work.path("kernel"), bytes).unwrap();
    };
    let boot = |more: &[&str]| {
        let words = [&["boot", "image", "--kernel", "kernel", "--console", "console"], more].concat();
        fails(&work, &[("PATH", "")], &words)
    };
    for (arch, parts, qemu) in [
        (0, &[(0x202, &b"HdrS"[..]), (0x236, &[1])][..], "qemu-system-x86_64"),
        (1, &[(0x38, b"ARM\x64")], "qemu-system-aarch64"),
        (3, &[(0x24, &[0x18, 0x28, 0x6f, 1])], "qemu-system-arm "),
        (4, &[(0x38, b"RSC\x05")], "qemu-system-riscv64"),
        (5, &[(0, b"\x7fELF\x02\x01\x01"), (18, &[21])], "qemu-system-ppc64"),
        (6, &[(0x1_0008, b"S390EP")], "qemu-system-s390x"),
    ] {
        program(&work.path("root/sbin/init"), &elf(ARCHES[arch]));
        let out = with(&work, &[("REPOT_INIT", "dist")], &["pack", "root", "-o", "image"]);
        assert!(out.status.success(), "{}", text(&out.stderr));
        kernel(parts);
        for more in [&[][..], &["--memory", "256M"]] {
            let error = boot(more);
            assert!(
                error.contains(&format!("{qemu}{}", if qemu.ends_with(' ') { "" } else { " " })),
                "{error}"
            );
        }
    }
    // The image is for s390x by now.
    kernel(&[(0x38, b"ARM\x64")]);
    assert!(boot(&[]).contains("the image is for s390x, but the kernel kernel is for aarch64"));
}
