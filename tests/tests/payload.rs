//! Roots that come compressed: everything arrives, whatever is added outside overrides, and what is damaged is told and not booted.
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use repot::payload::archive::{self, Source};
use repot::payload::index::Index;
use repot_tests::faults::{Outcome, error_name};
use repot_tests::intercept::{Calls, Verdict};
use repot_tests::payload::faults::Sweep;
use repot_tests::payload::{
    Packed, RULES, archive as archive_of, arrived, carried, chunks, edit, kept, noise, of_several_chunks,
    pack, pack_directory, packable, unpacked,
};
use repot_tests::programs;
use repot_tests::rehome::{AFTER_BOOT, Rehomed, run};
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::snapshot::{Atime, Rules, difference, snapshot};
use repot_tests::stage::{Prepared, Stage, prepare};
use repot_tests::trees::{Fs, hostile, one_of_each};
use rustix::io::Errno;

const MOVE: &str = "mode=move";
const QUICK_END: &str = "onerror=poweroff";

/// Runs an image on an `fs` and gives what came of it.
fn boot(fs: Fs, packed: &Packed) -> Rehomed {
    run(unpacked(fs, &[], &[&packed.image], |_| ()), &Setup::default())
}

fn assert_arrived(packed: &Packed, rehomed: &Rehomed) {
    let said = difference(&carried(&packed.before), &arrived(&rehomed.after), RULES);
    assert_eq!(said, "", "it printed:\n{}", rehomed.running.log());
    rehomed.check_moved();
    rehomed.check_old_root_is_empty();
}

#[test]
fn every_attribute_of_every_entry_arrives() {
    let packed = pack(&[MOVE], |stage| stage.plant(&packable(hostile())));
    for fs in Fs::ALL {
        let rehomed = boot(fs, &packed);
        assert_arrived(&packed, &rehomed);
        let log = rehomed.running.log();
        assert!(log.contains("repot: payload: ") && log.contains("old root empty"), "{log}");
    }
}

#[test]
fn several_threads_unpack_several_frames() {
    for threads in ["threads=1", "threads=3", "threads=8"] {
        let packed = pack(&[MOVE, threads], of_several_chunks);
        assert_arrived(&packed, &boot(Fs::Ramfs, &packed));
    }
}

#[test]
fn the_same_tree_gives_the_same_image() {
    let folder = tempfile::tempdir().expect("a directory");
    let outputs = ["once", "twice"].map(|name| folder.path().join(name));
    prepare(Fs::Tmpfs, |stage| {
        stage.plant(&one_of_each());
        of_several_chunks(stage);
        for output in &outputs {
            pack_directory(&stage.path(""), output, &[MOVE]);
        }
    });
    let [once, twice] = outputs.map(|output| fs::read(output).expect("an image"));
    let differs = once.iter().zip(&twice).position(|(a, b)| a != b);
    assert!(differs.is_none() && once.len() == twice.len(), "at byte {differs:?}");
}

/// The concatenation of the chunks is what it says: an archive that GNU tar extracts, but for what tar itself cannot hold.
#[test]
fn gnu_tar_extracts_the_payload() {
    let packed = pack(&[MOVE], |stage| {
        stage.plant(&packable(hostile()));
        of_several_chunks(stage);
    });
    let bytes = archive_of(&packed.image);
    let (_folder, file, _) = kept(&bytes);
    let extracted = prepare(Fs::Tmpfs, |stage| {
        let mut tar = Command::new("tar");
        tar.args([
            "--extract",
            "--delay-directory-restore",
            "--same-owner",
            "--preserve-permissions",
            "--xattrs",
        ]);
        tar.args([
            "--xattrs-include=*",
            "--numeric-owner",
            "--warning=no-unknown-keyword",
            "--warning=no-timestamp",
        ]);
        tar.arg("-C").arg(stage.path("")).stdin(Stdio::from(file));
        let out = tar.output().expect("tar");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    });
    let mut before = carried(&packed.before);
    let mut after = arrived(&extracted.before);
    // A socket is a fifo to tar.
    for (path, entry) in &mut before {
        if entry.kind == repot_tests::snapshot::Kind::Socket {
            entry.kind = repot_tests::snapshot::Kind::Fifo;
        }
        // What the image has outside is not in the payload.
        assert!(after.contains_key(path), "{}", path.escape_ascii());
    }
    after.remove(&b"etc/repot.conf"[..]);
    assert_eq!(difference(&before, &after, RULES), "");
}

/// A further archive behind the image: its files replace the payload's, its directories are merged.
#[test]
fn what_is_appended_overrides_the_payload() {
    let packed = pack(&[MOVE], |stage| {
        stage.file("both/file", b"old");
        stage.file("both/stays", b"stays");
        stage.file("becomes/a/file/with", b"things in it");
        stage.file("becomes-a-directory", b"was a file");
        stage.link("link", "both");
        stage.dir("kept");
        fs::set_permissions(stage.path("kept"), fs::Permissions::from_mode(0o2750)).expect("mode");
    });
    let add = |stage: &Stage| {
        stage.file("both/file", b"new, and longer");
        stage.file("both/fresh", b"fresh");
        stage.file("becomes/a", b"now a file");
        stage.file("becomes-a-directory/inside", b"now a directory");
        stage.file("link", b"now a file");
        stage.file("kept/more", b"more");
        stage.file("only/outside", b"here");
        fs::hard_link(stage.path("both/fresh"), stage.path("only/linked")).expect("linked");
    };
    for fs in Fs::ALL {
        let rehomed = run(unpacked(fs, &[], &[&packed.image], add), &Setup::default());
        let after = &rehomed.after;
        let text = |path: &str| {
            let content = after[path.as_bytes()].content.as_ref();
            let page = content.and_then(|content| content.page(0)).unwrap_or_default();
            String::from_utf8_lossy(page).trim_end_matches('\0').to_owned()
        };
        assert_eq!(text("both/file"), "new, and longer");
        assert_eq!(text("both/stays"), "stays");
        assert_eq!(text("becomes/a"), "now a file");
        assert_eq!(text("becomes-a-directory/inside"), "now a directory");
        assert_eq!(text("link"), "now a file");
        assert_eq!(text("only/outside"), "here");
        assert_eq!((text("both/fresh"), after[&b"both/fresh"[..]].nlink), ("fresh".to_owned(), 2));
        assert!(!after.contains_key(&b"becomes/a/file"[..]));
        // A directory in both keeps what it has in the payload, its age included.
        let kept = (&packed.before[&b"kept"[..]], &after[&b"kept"[..]]);
        assert_eq!((kept.0.mode, kept.0.mtime), (kept.1.mode, kept.1.mtime));
        rehomed.check_old_root_is_empty();
    }
}

#[test]
fn mounts_are_carried_onto_the_unpacked_tree() {
    let packed = pack(&[MOVE], |stage| {
        stage.file("srv/data/under", b"hidden");
        stage.file("etc/resolv.conf", b"");
    });
    let mount = |stage: &Stage| {
        stage.mount(Fs::Tmpfs, "srv/data");
        stage.file("srv/data/file", b"mounted");
        stage.file("etc/resolv.conf", b"of the outer archive");
        stage.bind("srv/data/file", "etc/resolv.conf");
    };
    let rehomed = run(unpacked(Fs::Tmpfs, &[], &[&packed.image], mount), &Setup::default());
    rehomed.check_mounts();
    rehomed.check_old_root_is_empty();
    assert!(rehomed.after.contains_key(&b"srv/data/under"[..]));
}

#[test]
fn modes_that_do_not_apply_are_told() {
    let packed = pack(&["mode=move"], |stage| stage.plant(&one_of_each()));
    let rehomed = boot(Fs::Tmpfs, &packed);
    assert!(!rehomed.running.log().contains("does not apply"));
    // Where the root is not the initial one, nothing but mode=move makes it a payload to unpack.
    let packed = pack(&["mode=bind", QUICK_END], |stage| stage.plant(&one_of_each()));
    let (_, end, log) = refused(&packed, |_| ());
    assert_eq!(end, End::Killed(2), "{log}");
    assert!(log.contains("no init can be executed"), "{log}");
}

/// Runs an image that is changed, to the end that it comes to.
fn refused(packed: &Packed, change: impl Fn(&Stage) + Send + Sync) -> (Prepared, End, String) {
    let prepared = unpacked(Fs::Tmpfs, &[], &[&packed.image], |stage| {
        // They are about what the kernel unpacked; here it is the image that is wrong.
        for mark in [".repot-begin", ".repot-end"] {
            fs::remove_file(stage.path(mark)).expect("removed");
        }
        change(stage);
    });
    let mut running = prepared.start(&Setup::default());
    let end = running.wait();
    let log = running.log();
    (prepared, end, log)
}

fn assert_untouched(prepared: &Prepared) {
    let rules = Rules { atime: Atime::Ignored, ..AFTER_BOOT };
    let said = difference(&prepared.before, &snapshot(&prepared.view).expect("a snapshot"), rules);
    assert_eq!(said, "", "it was touched");
}

type Spoil = fn(&Stage);

/// Whatever is wrong with chunks or index is told before anything is touched, by the name of the chunk.
#[test]
fn damage_is_found_before_anything_is_unpacked() {
    const SOME: usize = 5;
    let cases: [(&str, &[&str], Spoil); 15] = [
        ("a bit in a chunk", &["SHA-256", "000005"], |stage| {
            edit(&chunks(stage)[SOME], |bytes| bytes[77_777] ^= 4)
        }),
        ("a bit in the last chunk", &["SHA-256", "0000"], |stage| {
            edit(chunks(stage).last().expect("one"), |bytes| bytes[0] ^= 1);
        }),
        ("a chunk missing", &["000005", "ENOENT"], |stage| {
            fs::remove_file(&chunks(stage)[SOME]).expect("removed")
        }),
        ("a chunk cut", &["size of chunk", "000005"], |stage| {
            edit(&chunks(stage)[SOME], |bytes| bytes.truncate(1000))
        }),
        ("a chunk longer", &["size of chunk", "000005"], |stage| {
            edit(&chunks(stage)[SOME], |bytes| bytes.push(0))
        }),
        ("a chunk empty", &["size of chunk", "000000"], |stage| edit(&chunks(stage)[0], Vec::clear)),
        ("a chunk doubled", &["SHA-256", "000006"], |stage| {
            fs::copy(&chunks(stage)[SOME], &chunks(stage)[SOME + 1]).expect("copied");
        }),
        ("a chunk more", &["not in the index", "999999"], |stage| {
            fs::copy(&chunks(stage)[SOME], stage.path(".repot-payload/999999")).expect("copied");
        }),
        ("chunks out of order", &["SHA-256", "00000"], |stage| {
            let (list, aside) = (chunks(stage), stage.path("aside"));
            fs::rename(&list[1], &aside).expect("renamed");
            fs::rename(&list[2], &list[1]).expect("renamed");
            fs::rename(&aside, &list[2]).expect("renamed");
        }),
        ("a chunk that is a link", &["000005", "ELOOP"], |stage| {
            fs::rename(&chunks(stage)[SOME], stage.path("aside")).expect("renamed");
            stage.link(".repot-payload/000005", "../aside");
        }),
        ("no index", &["index", "ENOENT"], |stage| {
            fs::remove_file(stage.path(".repot-payload/index")).expect("removed")
        }),
        ("an index cut off", &["index:", "expected"], |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("an index that lies about a frame", &["no frame as the index has it"], |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| {
                let mut index = Index::parse(bytes).expect("an index");
                index.frames[2].start -= 1;
                index.frames[1].size -= 1;
                index.frames[2].size += 1;
                *bytes = index.text().into_bytes();
            });
        }),
        ("an index of a newer format", &["newer"], |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| bytes[7] = b'2')
        }),
        ("an index that promises too much", &["does not fit", "needs more memory"], |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| {
                let mut index = Index::parse(bytes).expect("an index");
                for frame in &mut index.frames {
                    frame.content = 1 << 50;
                }
                index.bytes = 1 << 50;
                index.pages = 1 << 38;
                *bytes = index.text().into_bytes();
            });
        }),
    ];
    let packed = pack(&[MOVE, QUICK_END], of_several_chunks);
    for (what, told, spoil) in cases {
        let (prepared, end, log) = refused(&packed, spoil);
        assert_eq!(end, End::Killed(2), "{what}: {log}");
        let all = told.iter().all(|word| log.contains(word));
        let one = what.contains("promises") && told.iter().any(|word| log.contains(word));
        assert!(all || one, "{what}: {log}");
        assert!(!log.contains("parts of the payload are gone"), "{what}: {log}");
        assert_untouched(&prepared);
    }
}

/// What shows only while it is unpacked: then the system is torn, and no init runs on half of it.
#[test]
fn an_index_that_lies_is_found_at_the_end_at_the_latest() {
    let packed = pack(&[MOVE, QUICK_END], of_several_chunks);
    for key in ["entries", "bytes"] {
        let (_, end, log) = refused(&packed, |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| {
                let mut index = Index::parse(bytes).expect("an index");
                if key == "entries" {
                    index.entries += 1
                } else {
                    index.bytes -= 1
                }
                index.largest = index.largest.min(index.bytes);
                *bytes = index.text().into_bytes();
            });
        });
        assert_eq!(end, End::Killed(2), "{key}: {log}");
        assert!(
            log.contains("numbers of entries and bytes") && log.contains("parts of the payload are gone"),
            "{log}"
        );
    }
}

/// Where the kernel could not unpack the whole image, that is what is told.
#[test]
fn an_image_that_was_cut_off_is_told_as_such() {
    let packed = pack(&[MOVE, QUICK_END], of_several_chunks);
    let prepared = unpacked(Fs::Tmpfs, &[], &[&packed.image], |stage| {
        fs::remove_file(chunks(stage).last().expect("one")).expect("removed");
        fs::remove_file(stage.path(".repot-end")).expect("removed");
    });
    let mut running = prepared.start(&Setup::default());
    assert_eq!(running.wait(), End::Killed(2), "{}", running.log());
    assert!(running.log().contains("no end") && running.log().contains("MemTotal"), "{}", running.log());
    assert_untouched(&prepared);
}

#[test]
fn a_tmpfs_that_is_too_small_is_refused_before_anything_is_touched() {
    for (setting, told) in [("size=3m", "size="), ("nr_inodes=10", "nr_inodes=10")] {
        let packed = pack(&[MOVE, QUICK_END, setting], of_several_chunks);
        let (prepared, end, log) = refused(&packed, |_| ());
        assert_eq!(end, End::Killed(2), "{log}");
        assert!(log.contains("does not fit") && log.contains(told), "{log}");
        assert_untouched(&prepared);
    }
}

#[test]
fn a_root_without_an_init_is_not_booted() {
    let packed = pack(&[MOVE, QUICK_END], |stage| stage.file("sh", b"#!/bin/sh\n"));
    let remove = |stage: &Stage| stage.file("sbin/init", b"not executable");
    let (_, end, log) = refused(&packed, remove);
    assert_eq!(end, End::Killed(2), "{log}");
    assert!(log.contains("no init can be executed") && log.contains("/sbin/init"), "{log}");
}

/// The digest of the index may be asked for by the configuration and the command line; whatever is asked for must hold.
#[test]
fn a_digest_that_is_asked_for_must_be_the_one() {
    let digest = |packed: &Packed| {
        let prepared = unpacked(Fs::Tmpfs, &[], &[&packed.image], |stage| {
            let text = fs::read(stage.path(".repot-payload/index")).expect("the index");
            let sum = repot_cli::payload::digest(&Index::parse(&text).expect("an index"));
            stage.file("digest", format!("{}", repot::payload::index::Hex(&sum)).as_bytes());
        });
        let content = prepared.before[&b"digest"[..]].content.as_ref().and_then(|content| content.page(0));
        String::from_utf8_lossy(content.unwrap_or_default()).trim_end_matches('\0').to_owned()
    };
    let packed = pack(&[MOVE, QUICK_END], |stage| stage.plant(&one_of_each()));
    let digest = digest(&packed);
    let other = "0".repeat(64);
    let config = |text: String| move |stage: &Stage| stage.file("etc/repot.conf", text.as_bytes());
    let base = "mode=move\nonerror=poweroff\n";
    let right =
        unpacked(Fs::Tmpfs, &[], &[&packed.image], config(format!("{base}payload=sha256:{digest}\n")));
    run(right, &Setup::default()).check_moved();
    for (text, told) in [
        (format!("{base}payload=sha256:{other}\n"), "is asked for"),
        // The later does not replace the earlier.
        (format!("{base}payload=sha256:{other}\npayload=sha256:{digest}\n"), "is asked for"),
        (format!("{base}payload=sha256:{digest}\npayload=md5\n"), "cannot be understood"),
    ] {
        let (prepared, end, log) = refused(&packed, config(text.clone()));
        assert_eq!(end, End::Killed(2), "{text}: {log}");
        assert!(log.contains(told), "{text}: {log}");
        assert_untouched(&prepared);
    }
    // One is asked for, and there is none.
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.program("init", programs::repot_init_payload());
        stage.program("sbin/init", programs::helper());
        stage.file("etc/repot.conf", format!("{base}payload=sha256:{digest}\n").as_bytes());
    });
    let mut running = prepared.start(&Setup::default());
    assert_eq!(running.wait(), End::Killed(2), "{}", running.log());
    assert!(running.log().contains("there is none"), "{}", running.log());
}

#[test]
fn an_init_without_support_says_so() {
    let packed = pack(&[MOVE, QUICK_END], |stage| stage.plant(&one_of_each()));
    let (prepared, end, log) = refused(&packed, |stage| stage.program("init", programs::repot_init()));
    assert_eq!(end, End::Killed(2), "{log}");
    assert!(log.contains("without support for payloads"), "{log}");
    assert_untouched(&prepared);
}

/// Everything in an archive, or the fault.
fn read_all(mut bytes: &[u8]) -> Result<usize, repot::error::Fault> {
    let mut count = 0;
    while let Some(entry) = archive::entry(&mut bytes)? {
        count += 1;
        if entry.kind == archive::Kind::File {
            archive::contents(&mut bytes, entry.size, |_| Ok(()))?;
        }
    }
    Ok(count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_an_index_or_none(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Index::parse(&bytes);
    }

    /// A change of an index makes it no index, or one that is written again as it was read.
    #[test]
    fn an_index_has_one_form(at in 0usize..420, with in any::<u8>()) {
        let digest = "5b".repeat(32);
        let mut text = format!(
            "format=1\nentries=5\nbytes=900\npages=3\ninodes=5\nlargest=500\nxattrs=0\nchunks=2\nframes=3\n\
             chunk=000000 262144 {digest}\nchunk=000001 77 {digest}\nframe=0 100 1024\nframe=100 262044 8192\n\
             frame=262144 77 1024\n"
        ).into_bytes();
        prop_assert!(Index::parse(&text).is_ok());
        let at = at % text.len();
        text[at] = with;
        if let Ok(index) = Index::parse(&text) {
            prop_assert_eq!(index.text().into_bytes(), text);
        }
    }

    #[test]
    fn any_bytes_are_an_archive_or_none(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read_all(&bytes);
    }

    /// Names of what a changed archive still holds never lead out of the root.
    #[test]
    fn a_changed_archive_stays_below_the_root(at in any::<prop::sample::Index>(), with in any::<u8>(), fix in any::<bool>()) {
        let mut bytes = sample();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if fix {
            checksum(&mut bytes, at / 512 * 512);
        }
        let mut source = &bytes[..];
        while let Ok(Some(entry)) = archive::entry(&mut source) {
            for name in entry.path.split(|byte| *byte == b'/') {
                prop_assert!(name != b".." && name != b"." && !name.contains(&0));
                prop_assert!(!name.is_empty() || entry.path.is_empty());
            }
            if entry.kind == archive::Kind::File && archive::contents(&mut source, entry.size, |_| Ok(())).is_err() {
                break;
            }
        }
    }
}

/// A small archive by the tool, records included.
fn sample() -> Vec<u8> {
    static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let fill = |stage: &Stage| {
        stage.plant(&one_of_each());
        let _ = fs::remove_file(stage.path("a/large"));
        let _ = fs::remove_file(stage.path("a/sparse"));
    };
    SAMPLE
        .get_or_init(|| {
            let mut bytes = archive_of(&pack(&[MOVE], fill).image);
            bytes.truncate(16 << 10);
            bytes
        })
        .clone()
}

fn checksum(bytes: &mut [u8], at: usize) {
    let Some(block) = bytes.get_mut(at..at + 512) else { return };
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// What is outside of a payload is no system, even where looking at it fails.
#[test]
fn nothing_is_executed_beside_a_payload_that_was_not_looked_at() {
    let packed = pack(&[MOVE, QUICK_END], |stage| stage.plant(&one_of_each()));
    let prepared = unpacked(Fs::Tmpfs, &[], &[&packed.image], |stage| {
        stage.program("sbin/init", programs::helper());
    });
    let calls = Calls::These(vec![libc::SYS_fstatfs]);
    let mut running = prepared.start(&Setup { calls, ..Setup::default() });
    let mut first = true;
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        if call.number == libc::SYS_fstatfs && std::mem::take(&mut first) {
            Verdict::Fail(Errno::IO)
        } else {
            Verdict::Continue
        }
    });
    assert_eq!(end, End::Killed(2), "{}", running.log());
    assert!(running.log().contains("nothing is executed in its place"), "{}", running.log());
}

/// The sources of the library read in pieces of any size what they read at once.
#[test]
fn pieces_of_any_size_are_the_same() {
    struct Slowly<'a>(&'a [u8], usize);
    impl Source for Slowly<'_> {
        fn next(&mut self, most: usize) -> Result<&[u8], repot::error::Fault> {
            let (piece, rest) = self.0.split_at(most.min(self.1).min(self.0.len()));
            self.0 = rest;
            Ok(piece)
        }
    }
    let bytes = sample();
    let names = |source: &mut dyn Source| {
        let mut names = BTreeSet::new();
        while let Ok(Some(entry)) = archive::entry(source) {
            names.insert(entry.path);
            if entry.kind == archive::Kind::File {
                let _ = archive::contents(source, entry.size, |_| Ok(()));
            }
        }
        names
    };
    let whole = names(&mut &bytes[..]);
    assert!(whole.len() > 5);
    for size in [1, 7, 511, 512, 513] {
        assert_eq!(names(&mut Slowly(&bytes, size)), whole, "{size}");
    }
}

/// The tool refuses what cannot be a payload, and leaves no file behind.
#[test]
fn what_cannot_be_packed_is_told() {
    use clap::Parser;
    let folder = tempfile::tempdir().expect("a directory");
    let (root, output) = (folder.path().join("root"), folder.path().join("image"));
    fs::create_dir(&root).expect("made");
    fs::write(root.join("noise"), noise(1, 1000)).expect("written");
    let pack = |more: &[&str]| {
        let words = [
            "repot",
            "pack",
            root.to_str().expect("plain"),
            "--payload",
            "-o",
            output.to_str().expect("plain"),
        ];
        repot_cli::run(&repot_cli::cli::Cli::try_parse_from(words.iter().chain(more)).expect("options"))
    };
    let init = programs::repot_init().to_str().expect("plain");
    for (more, told) in [(&["--init", init][..], "cannot unpack payloads"), (&["--compress", "xz"], "zstd")] {
        let error = pack(more).expect_err("refused");
        assert!(format!("{error:#}").contains(told), "{error:#}");
        assert!(!Path::new(&output).exists());
    }
}

/// A sample of the sweep (`cargo xtask faults --payload` runs all of it): an init on a whole tree, or none and the cause.
#[test]
fn a_call_that_fails_leaves_a_whole_system_or_none() {
    let sweep = Sweep::new();
    let points = sweep.points();
    assert!(points.len() > 1000, "{} points", points.len());
    let (mut moved, mut gave_up) = (0, 0);
    for point in points.iter().step_by(71) {
        match sweep.run(point) {
            Outcome::Moved => moved += 1,
            Outcome::GaveUp(log) => {
                gave_up += 1;
                assert!(
                    log.is_empty()
                        || log.contains(error_name(point.error))
                        || log.contains("no init can be executed")
                        // Whichever error the kernel gave, to the allocator it is want of memory.
                        || log.contains("malloc ENOMEM")
                        || log.contains("nothing is executed in its place"),
                    "{point}: {log}"
                );
            }
            Outcome::NotReached => {}
            other @ (Outcome::Bound | Outcome::Stayed | Outcome::Late | Outcome::Wrong(_)) => {
                panic!("{point}: {other:?}")
            }
        }
    }
    assert!(moved > 5 && gave_up > 0, "{moved} {gave_up}");
}
