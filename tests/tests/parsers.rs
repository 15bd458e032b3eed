//! Parsers with any bytes: none panics, none takes long, and valid input is parsed correctly.
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use repot::facts::mountinfo;
use repot::facts::program::{self, Machine};
use repot::facts::unpacked::complaints;
use repot::manifest::{self, Line};
use repot::marker::Totals;
use repot::options::Options;
use repot::options::cmdline::{self, same_key};

/// Random bytes, and bytes that resemble valid input: known words, truncated and joined at random.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: [&[u8]; 40] = [
        b"repot.",
        b"mode=",
        b"size=",
        b"nr_inodes",
        b"init=",
        b"\"",
        b"=",
        b" ",
        b"\n",
        b"--",
        b"\\040",
        b"\\",
        b"#",
        b"shared:1",
        b" - ",
        b"/",
        b"22 1 0:20 / /x rw ",
        b"rootfs",
        b"cmdline=ignore",
        b"onerror",
        b"99999999999999999999",
        b"-1",
        b"%",
        b"k",
        b"\0",
        b"\xff",
        b"# file: ",
        b"user.x=0x",
        b"0s",
        b"QUJD",
        b"==",
        b"\\0",
        b"\\012",
        b"format=1\n",
        b"entries=",
        b"bytes=",
        b"Initramfs unpacking failed: ",
        b"write error",
        b"wipe",
        b"threads=0",
    ];
    let word = prop_oneof![
        4 => proptest::sample::select(&WORDS[..]).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..8),
    ];
    prop_oneof![3 => vec(word, 0..60).prop_map(|words| words.concat()), 1 => vec(any::<u8>(), 0..600)]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn parsers_accept_any_bytes(text in bytes(), more in bytes()) {
        let params = cmdline::parse(&text);
        for param in &params {
            prop_assert!(param.key.len() + param.value.map_or(0, <[u8]>::len) <= text.len());
        }
        let options = Options::read(Some(&more), &params);
        let lines = more.split(|&byte| byte == b'\n').count() + params.len();
        prop_assert!(options.warnings.len() <= lines, "{:?}", options.warnings);
        for warning in &options.warnings {
            prop_assert!(warning.is_ascii(), "fit for a console: {warning:?}");
        }
        for mount in mountinfo::parse(&text) {
            prop_assert!(mount.point.len() <= text.len());
        }
        prop_assert!(complaints(&text).len() <= 8);
        let _ = Totals::parse(&text);
        for line in text.split(|&byte| byte == b'\n') {
            let _ = manifest::line(line);
        }
    }

    /// Escaped as the kernel escapes mount points (`seq_path`): space, tab, newline and backslash in octal.
    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them(path in vec(1..=255_u8, 1..300), id in any::<u32>(), shared: bool) {
        let mut line = format!("{id} 1 0:20 / ").into_bytes();
        for &byte in &path {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => write!(line, "\\{byte:03o}").expect("written"),
                byte => line.push(byte),
            }
        }
        line.extend_from_slice(if shared { b" rw shared:7 - tmpfs none rw\n" } else { b" rw - tmpfs none rw\n" });
        let mounts = mountinfo::parse(&line);
        prop_assert_eq!(mounts.len(), 1);
        prop_assert_eq!((mounts[0].id, mounts[0].parent, mounts[0].group != 0), (id.into(), 1, shared));
        prop_assert_eq!(&mounts[0].point, &path);
    }

    #[test]
    fn command_line_words_are_parsed_unchanged(
        words in vec(("[a-z_.-]{1,20}", proptest::option::of("[a-zA-Z0-9,/:%=]{0,20}")), 0..20),
        gap in "[ \t\n]{1,3}",
    ) {
        // Words after "--" belong to the init.
        prop_assume!(words.iter().all(|(key, value)| key != "--" || value.is_some()));
        let text: Vec<_> = words
            .iter()
            .map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}")))
            .collect();
        let line = text.join(&gap);
        let params = cmdline::parse(line.as_bytes());
        prop_assert_eq!(params.len(), words.len());
        for (param, (key, value)) in params.iter().zip(&words) {
            prop_assert_eq!(param.key, key.as_bytes());
            prop_assert_eq!(param.value, value.as_deref().map(str::as_bytes));
            prop_assert!(same_key(param.key, key.replace('-', "_").as_bytes()));
        }
    }

    #[test]
    fn manifest_attributes_are_parsed_unchanged(name in vec(1..=255_u8, 1..40), value in vec(any::<u8>(), 0..200)) {
        let mut line = vec![];
        for &byte in &name {
            match byte {
                b'\n' | b'\r' | b'\\' | b'=' => write!(line, "\\{byte:03o}").expect("written"),
                byte => line.push(byte),
            }
        }
        prop_assume!(line[0] != b'#');
        line.extend_from_slice(b"=0x");
        for byte in &value {
            write!(line, "{byte:02x}").expect("written");
        }
        prop_assert_eq!(manifest::line(&line), Some(Line::Attribute(name, value)));
    }
}

proptest! {
    #![proptest_config(config(400))]

    /// Random bytes after a valid magic, and a real program with some bytes changed.
    #[test]
    fn program_inspection_accepts_any_bytes(noise in vec(any::<u8>(), 0..700), changes in vec((0..700_usize, any::<u8>()), 0..12)) {
        let real = fs::read(repot_tests::programs::helper()).expect("the helper");
        let mut changed = real[..real.len().min(4096)].to_vec();
        for (at, byte) in changes {
            changed[at] = byte;
        }
        let dir = Scratch::new();
        for content in [noise.clone(), [b"\x7fELF".as_slice(), &noise].concat(), [b"#!".as_slice(), &noise].concat(), changed] {
            fs::write(dir.0.join("program"), content).expect("written");
            fs::set_permissions(dir.0.join("program"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
            let root = fs::File::open(&dir.0).expect("the directory");
            let started = Instant::now();
            if let Err(why) = program::test(&root.as_fd(), b"/program", None, Machine::running()) {
                prop_assert!(!why.to_string().is_empty());
            }
            prop_assert!(started.elapsed() < Duration::from_secs(5));
        }
    }
}

/// The time is linear in the length of the input: no parser is quadratic.
#[test]
fn parsing_time_is_linear() {
    for word in [
        &b"repot.x=\"y z\" "[..],
        b"\"",
        b"=",
        b"\\040",
        b"mode=move\n",
        b"1 1 0:1 / / rw - x",
        b" ",
        b"\n",
        b"#",
    ] {
        let text = word.repeat((4 << 20) / word.len());
        let started = Instant::now();
        let params = cmdline::parse(&text);
        let _ = Options::read(Some(&text), &params);
        let _ = mountinfo::parse(&text);
        let _ = complaints(&text);
        let _ = Totals::parse(&text);
        let _ = manifest::line(&text);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "{}: {took:?}", word.escape_ascii());
    }
}

/// A command line of the maximum length, with a single key.
#[test]
fn a_command_line_of_one_key() {
    let line = [b"repot.".as_slice(), &b"x".repeat(4096 - 6)].concat();
    let options = Options::read(None, &cmdline::parse(&line));
    assert_eq!(options.warnings.len(), 1);
    assert!(options.warnings[0].starts_with("command line: repot."), "{}", options.warnings[0]);
}

/// A directory that is removed at the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let path = std::env::temp_dir().join(format!("repot-parsers-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
