//! The init tests the programs of a directory, `inspect` those of an image. Both give the same answer.

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use repot::facts::program::{Architecture, Machine, test};
use repot_cli::programs::{self, Programs};
use repot_cli::source::directory;
use support::Work;

const I386: Architecture = Architecture { number: 3, wide: false, big: false };
const X32: Architecture = Architecture { number: 62, wide: false, big: false };
const X86_64: Architecture = Architecture { number: 62, wide: true, big: false };
const ARM: Architecture = Architecture { number: 40, wide: false, big: false };
const AARCH64: Architecture = Architecture { number: 183, wide: true, big: false };
const PPC: Architecture = Architecture { number: 20, wide: false, big: true };
const PPC64: Architecture = Architecture { number: 21, wide: true, big: true };
const PPC64LE: Architecture = Architecture { number: 21, wide: true, big: false };
const S390X: Architecture = Architecture { number: 22, wide: true, big: true };
const NOBODYS: Architecture = Architecture { number: 9999, wide: true, big: false };

/// An ELF program. The program header of its interpreter is at `table`, the interpreter's path behind it.
fn elf(architecture: Architecture, interpreter: Option<&str>, table: usize) -> Vec<u8> {
    let Architecture { number, wide, big } = architecture;
    let mut bytes = vec![0; if wide { 64 } else { 52 }];
    bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 1 + u8::from(big), 1]);
    let mut put = |at: usize, size: usize, value: usize| {
        let little = (value as u64).to_le_bytes();
        let mut field = little[..size].to_vec();
        if big {
            field.reverse();
        }
        bytes.resize(bytes.len().max(at + size), 0);
        bytes[at..at + size].copy_from_slice(&field);
    };
    let (word, phoff, phentsize) = if wide { (8, 32, 54) } else { (4, 28, 42) };
    put(18, 2, number.into());
    if let Some(path) = interpreter {
        let (entry, offset, filesz) = if wide { (56, 8, 32) } else { (32, 4, 16) };
        put(phoff, word, table);
        put(phentsize, 2, entry);
        put(phentsize + 2, 2, 1);
        put(table, 4, 3);
        put(table + offset, word, table + entry);
        put(table + filesz, word, path.len() + 1);
        put(table + entry - 1, 1, 0);
        bytes.extend(path.bytes().chain([0]));
    }
    bytes
}

fn program(work: &Work, path: &str, bytes: &[u8]) {
    let path = work.path("root").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Tests `/sbin/init` in the directory `root`, in the tree that is read from it, and in the image that is
/// packed from it. The machine is that of `own`, the architecture of `/init`.
fn answer(work: &Work, own: Architecture) -> String {
    let root = fs::File::open(work.path("root")).unwrap();
    let in_directory = test(&root.as_fd(), b"/sbin/init", None, Machine::of(own)).err();
    let tree = directory::scan(&work.path("root")).unwrap().tree;
    let of_tree = programs::of_tree(&tree);
    let in_tree = Programs { tree: &tree, program: &of_tree, config: "", repot: true };
    assert_eq!(test(&in_tree, b"/sbin/init", None, Machine::of(own)).err(), in_directory);
    let in_directory = in_directory.map_or_else(|| "runs".to_string(), |why| why.to_string());

    fs::write(work.path("init"), [&elf(own, None, 0)[..], b"etc/repot.conf"].concat()).unwrap();
    work.done(&["pack", "root", "-o", "image", "--init", "init"]);
    let found = work.inspect("image");
    if in_directory == "runs" {
        assert_eq!(found["init"], "/sbin/init", "{found}");
    } else {
        let problem = format!(r#""/sbin/init" {in_directory}"#);
        let problems = found["problems"].as_array().unwrap();
        assert!(problems.iter().any(|one| one.as_str().unwrap().contains(&problem)), "{problem}: {found}");
    }
    in_directory
}

#[test]
fn programs_of_other_machines() {
    for (own, other, expected) in [
        (X86_64, X86_64, "runs"),
        (X86_64, I386, "runs"),
        (X86_64, X32, "runs"),
        (AARCH64, ARM, "runs"),
        (PPC64, PPC, "runs"),
        (S390X, S390X, "runs"),
        (NOBODYS, NOBODYS, "runs"),
        (I386, X86_64, "is built for another architecture (ELF machine 62)"),
        (ARM, AARCH64, "is built for another architecture (ELF machine 183)"),
        (X86_64, ARM, "is built for another architecture (ELF machine 40)"),
        (X86_64, S390X, "is built for another architecture (ELF machine 22)"),
        (S390X, X86_64, "is built for another architecture (ELF machine 62)"),
        (PPC64, PPC64LE, "is built for another architecture (ELF machine 21)"),
        (X86_64, NOBODYS, "is built for another architecture (ELF machine 9999)"),
        (NOBODYS, X86_64, "is built for another architecture (ELF machine 62)"),
    ] {
        let work = Work::new();
        program(&work, "sbin/init", &elf(other, None, 0));
        assert_eq!(answer(&work, own), expected, "{other:?} on {own:?}");
        // The same program as the interpreter of a script.
        program(&work, "sbin/real", &elf(other, None, 0));
        program(&work, "sbin/init", b"#! /sbin/real -x\n");
        let needs = format!(r#"needs "/sbin/real", which {expected}"#);
        assert_eq!(
            answer(&work, own),
            if expected == "runs" { expected } else { &needs },
            "{other:?} on {own:?}"
        );
    }
}

/// What the test of `/sbin/init` says, and what builds the root.
type Case = (&'static str, fn(&Work));

/// patchelf puts the program headers at the end of the file.
#[test]
fn interpreters_in_the_first_page_and_far_behind_it() {
    for own in [X86_64, I386, S390X, PPC] {
        for table in [64, 4080, 100_000] {
            let work = Work::new();
            program(&work, "sbin/init", &elf(own, Some("/lib/ld.so"), table));
            assert_eq!(answer(&work, own), r#"needs "/lib/ld.so", which does not exist"#, "{own:?} {table}");
            program(&work, "lib/ld.so", &elf(own, None, 0));
            assert_eq!(answer(&work, own), "runs", "{own:?} {table}");
        }
    }
}

#[test]
fn what_is_no_program() {
    const CASES: [Case; 8] = [
        ("does not exist", |_| ()),
        ("is a directory", |work| fs::create_dir_all(work.path("root/sbin/init")).unwrap()),
        ("is neither an ELF program nor a script", |work| program(work, "sbin/init", b"")),
        ("is neither an ELF program nor a script", |work| program(work, "sbin/init", b"#! \n/bin/sh")),
        ("is neither an ELF program nor a script", |work| program(work, "sbin/init", b"\x7fELF\x03\x01")),
        ("is not executable", |work| {
            program(work, "sbin/init", b"#!/init\n");
            fs::set_permissions(work.path("root/sbin/init"), PermissionsExt::from_mode(0o644)).unwrap();
        }),
        ("does not exist", |work| {
            fs::create_dir(work.path("root/sbin")).unwrap();
            symlink("/gone", work.path("root/sbin/init")).unwrap();
        }),
        ("runs", |work| {
            program(work, "real", &elf(X86_64, None, 0));
            fs::create_dir(work.path("root/sbin")).unwrap();
            symlink("../../../real", work.path("root/sbin/init")).unwrap();
        }),
    ];
    for (expected, build) in CASES {
        let work = Work::new();
        build(&work);
        assert_eq!(answer(&work, X86_64), expected);
    }
}

#[test]
fn scripts_of_scripts_end_at_the_depth_of_the_kernel() {
    let work = Work::new();
    program(&work, "sbin/init", b"#!/bin/1\n");
    for number in 1..4 {
        program(&work, &format!("bin/{number}"), format!("#!\t/bin/{} x\n", number + 1).as_bytes());
    }
    program(&work, "bin/4", &elf(X86_64, None, 0));
    assert_eq!(answer(&work, X86_64), "runs");
    program(&work, "bin/4", b"#!/bin/5\n");
    program(&work, "bin/5", &elf(X86_64, None, 0));
    assert!(answer(&work, X86_64).ends_with("is a script with too many levels of interpreters"));
}

/// The message for people names the machines.
#[test]
fn both_machines_are_named() {
    let work = Work::new();
    program(&work, "sbin/init", &elf(ARM, None, 0));
    answer(&work, X86_64);
    let problems = work.inspect("image")["problems"].to_string();
    let both = "is built for another architecture (ELF machine 40): arm, but /init is for x86_64";
    assert!(problems.contains(both), "{problems}");
}
