//! Payload images: everything arrives, additions override, and requested digests must match.
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use repot::display::Hex;
use repot::payload::index::{Index, xxh64};
use repot_snapshot::{difference, snapshot};
use repot_tests::payload_image::runs::{MOVE, QUICK_END, assert_untouched, boot, refused, with_faults};
use repot_tests::payload_image::{
    Packed, RULES, archive as archive_of, arrived, carried, chunks, edit, kept, noise, of_several_chunks,
    pack, pack_directory, packable, unpacked,
};
use repot_tests::programs;
use repot_tests::rehome::{Rehomed, run};
use repot_tests::sandbox::{End, Setup};
use repot_tests::stage::{Stage, prepare};
use repot_tests::trees::{Data, Fs, Meta, Plant, What, hostile, one_of_each};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

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

/// Several threads write a large file at once. Attributes that writing clears are set after the last piece.
#[test]
fn files_in_pieces_are_whole() {
    const PIECE: u64 = 4 << 20;
    let sizes = [PIECE - 2048, PIECE - 2047, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE - 511, 5 * PIECE + 513];
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    for threads in ["threads=1", "threads=8"] {
        let packed = pack(&[MOVE, threads], |stage| {
            for (number, size) in sizes.into_iter().enumerate() {
                let meta = Meta {
                    mode: [0o4755, 0o2711, 0o0440][number % 3],
                    uid: [0, 77, 100_000][number % 3],
                    gid: 5,
                    mtime: (1_234_567_890, 123_456_789),
                    xattrs: vec![(c"security.capability".into(), capability.clone())],
                    ..Meta::default()
                };
                let path = format!("{number}").into_bytes();
                let what = What::File { len: size, data: vec![Data { at: 0, len: size }] };
                stage.plant(&[
                    Plant { path: path.clone(), what, meta },
                    Plant {
                        path: [&b"a"[..], &path].concat(),
                        what: What::HardLink(path),
                        meta: Meta::default(),
                    },
                ]);
            }
        });
        for fs in Fs::ALL {
            assert_arrived(&packed, &boot(fs, &packed));
        }
    }
}

/// Blocks of zeros become holes, wherever a frame or a piece of a file ends, and the index counts the rest.
#[test]
fn holes_take_no_memory() {
    const PIECE: u64 = 4 << 20;
    // Name, size, and where there are data; each byte makes one page.
    let files: [(&str, u64, &[u64]); 7] = [
        ("empty", 100_000, &[]),
        ("start", 3 * PIECE, &[0]),
        ("end", 3 * PIECE + 77, &[3 * PIECE + 76]),
        ("edges", 3 * PIECE, &[4095, 8192, PIECE - 1, PIECE, 2 * PIECE + 4096]),
        ("pieces", 5 * PIECE, &[2 * PIECE + 1]),
        ("small", 5000, &[4999]),
        ("hole at the end", 70_001, &[4097]),
    ];
    let pages: usize = files.iter().map(|(_, _, data)| data.len()).sum();
    let without = pack(&[MOVE], |_| ()).index().pages.numbers[0];
    for threads in ["threads=1", "threads=8"] {
        let packed = pack(&[MOVE, threads], |stage| {
            for (name, size, data) in files {
                let file = File::create(stage.path(name)).expect("a file");
                file.set_len(size).expect("its size");
                for at in data {
                    file.write_all_at(b"x", *at).expect("data");
                }
            }
        });
        for fs in Fs::ALL {
            let rehomed = boot(fs, &packed);
            assert_arrived(&packed, &rehomed);
            let root = rehomed.running.root();
            for (name, _, data) in files {
                let file = openat(&root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                let blocks = File::from(file.expect("the file")).metadata().expect("its status").blocks();
                assert_eq!(blocks, 8 * data.len() as u64, "{name} {threads} {fs:?}");
            }
        }
        assert_eq!(packed.index().pages.numbers[0], without + pages as u64, "{threads}");
    }
}

/// The first init is executed, however many links with `..` lead to it. In a detached mount the kernel
/// refuses such a path (EAGAIN) once for each link whose access time is to be changed.
#[test]
fn an_init_behind_links_is_found() {
    let packed = pack(&[MOVE], |stage| {
        stage.dir("links");
        stage.program("links/program", programs::helper());
        let mut target = "../links/program".to_owned();
        for number in 0..12 {
            let path = format!("links/{number}");
            std::os::unix::fs::symlink(&target, stage.path(&path)).expect("a link");
            target = format!("../{path}");
        }
        stage.dir("sbin");
        std::os::unix::fs::symlink(&target, stage.path("sbin/first")).expect("a link");
    });
    for fs in Fs::ALL {
        let prepared = unpacked(fs, &[], &[&packed.image], |stage| {
            stage.file("etc/repot.conf", b"mode=move\ninit=/sbin/first\n");
        });
        let rehomed = run(prepared, &Setup::default());
        let log = rehomed.running.log();
        assert!(log.contains("executing \"/sbin/first\"") && !log.contains("warning"), "{fs:?}: {log}");
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

/// The chunks together are a tar archive that GNU tar extracts, except for what tar cannot carry.
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
    // tar stores a socket as a fifo.
    for (path, entry) in &mut before {
        if entry.kind == repot_snapshot::Kind::Socket {
            entry.kind = repot_snapshot::Kind::Fifo;
        }
        // Files of the image outside of the payload.
        assert!(after.contains_key(path), "{}", path.escape_ascii());
    }
    after.remove(&b"etc/repot.conf"[..]);
    // GNU tar sets the mode after the ACL, whose mask then is what the owning group has.
    let acl = [&mut before, &mut after].map(|tree| tree.remove(&b"attributes/acl"[..]).expect("an ACL").mode);
    assert_eq!(acl, [0o660, 0o640]);
    assert_eq!(difference(&before, &after, RULES), "");
}

/// Attributes that no kernel accepts in a foreign archive are skipped, and nothing else is lost.
#[test]
fn attributes_that_the_kernel_refuses_are_logged_and_skipped() {
    let folder = tempfile::tempdir().expect("a directory");
    let (archive, image) = (folder.path().join("root.tar"), folder.path().join("image"));
    prepare(Fs::Tmpfs, |stage| {
        stage.program("sbin/init", programs::helper());
        stage.dir("etc");
        stage.file("file", b"has it");
        stage.link("link", "file");
        stage.plant(&[Plant { path: b"pipe".to_vec(), what: What::Fifo, meta: Meta::default() }]);
        let mut tar = Command::new("tar");
        tar.args(["--format=pax", "--pax-option=SCHILY.xattr.user.note:=hello", "-C"]);
        let out = tar.arg(stage.path("")).arg("-cf").arg(&archive).arg(".").output().expect("tar");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        pack_directory(&archive, &image, &[MOVE]);
    });
    let image = fs::read(image).expect("an image");
    let rehomed = run(unpacked(Fs::Tmpfs, &[], &[&image], |_| ()), &Setup::default());
    let log = rehomed.running.log();
    for name in ["link", "pipe"] {
        let told = format!(
            "payload: setxattr \"user.note\" on \"{name}\": EPERM (operation not permitted); skipped"
        );
        assert!(log.contains(&told), "{log}");
        assert!(rehomed.after[name.as_bytes()].xattrs.is_empty());
    }
    // tmpfs has user attributes since 6.6.
    let note = rehomed.after[&b"file"[..]].xattrs.values().next().cloned();
    assert!(note.as_deref() == Some(b"hello") || log.contains("of \"file\": EOPNOTSUPP"), "{log}");
    rehomed.check_moved();
    rehomed.check_old_root_is_empty();
}

/// If the kernel refuses an attribute with any error, everything else arrives, and the error is logged.
#[test]
fn no_attribute_error_loses_the_tree() {
    let packed = pack(&[MOVE, QUICK_END], |stage| stage.plant(&one_of_each()));
    for error in [Errno::PERM, Errno::NOSPC, Errno::TOOBIG, Errno::RANGE, Errno::NOMEM, Errno::ACCESS] {
        let prepared = unpacked(Fs::Tmpfs, &[], &[&packed.image], |_| ());
        let (end, running) =
            with_faults(&prepared, &[libc::SYS_fsetxattr, libc::SYS_lsetxattr], |_| Some(error));
        let log = running.log();
        assert_eq!(end, End::Init("ready".into()), "{log}");
        let after = arrived(&snapshot(running.root()).expect("a snapshot"));
        let lost = difference(&carried(&packed.before), &after, RULES);
        assert!(!lost.is_empty() && lost.lines().all(|line| line.contains("xattrs")), "{error}: {lost}");
        assert!(log.contains("payload: setxattr ") && log.contains("; skipped"), "{error}: {log}");
    }
}

/// An archive appended to the image: its files replace those of the payload, its directories are merged.
#[test]
fn an_appended_archive_overrides_the_payload() {
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
        let text = |path: &str| text_of(rehomed.running.root(), path);
        assert_eq!(text("both/file"), "new, and longer");
        assert_eq!(text("both/stays"), "stays");
        assert_eq!(text("becomes/a"), "now a file");
        assert_eq!(text("becomes-a-directory/inside"), "now a directory");
        assert_eq!(text("link"), "now a file");
        assert_eq!(text("only/outside"), "here");
        assert_eq!((text("both/fresh"), after[&b"both/fresh"[..]].nlink), ("fresh".to_owned(), 2));
        assert!(!after.contains_key(&b"becomes/a/file"[..]));
        // A directory in both keeps what it has in the payload, its times included.
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
fn modes_that_do_not_apply_are_logged() {
    let packed = pack(&["mode=move"], |stage| stage.plant(&one_of_each()));
    let rehomed = boot(Fs::Tmpfs, &packed);
    assert!(!rehomed.running.log().contains(" ignored: the root is a payload"));
    // If the root is not the initial one, only mode=move unpacks a payload.
    let packed = pack(&["mode=bind", QUICK_END], |stage| stage.plant(&one_of_each()));
    let (_, end, log) = refused(&packed, |_| ());
    assert_eq!(end, End::Killed(2), "{log}");
    assert!(log.contains("no init is executable"), "{log}");
}

/// Both the configuration and the command line can require a digest, and each required digest must match.
#[test]
fn a_required_digest_must_match() {
    let digest = |packed: &Packed| {
        let prepared = unpacked(Fs::Tmpfs, &[], &[&packed.image], |stage| {
            let text = fs::read(stage.path(".repot-payload/index")).expect("the index");
            let sum = repot_cli::payload::digest(&Index::parse(&text).expect("an index"));
            stage.file("digest", format!("{}", Hex(&sum)).as_bytes());
        });
        text_of(&prepared.view, "digest")
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
        (format!("{base}payload=sha256:{other}\n"), "payload= requires"),
        // The later one does not replace the earlier one.
        (format!("{base}payload=sha256:{other}\npayload=sha256:{digest}\n"), "payload= requires"),
        (format!("{base}payload=sha256:{digest}\npayload=md5\n"), "a malformed digest"),
    ] {
        let (prepared, end, log) = refused(&packed, config(text.clone()));
        assert_eq!(end, End::Killed(2), "{text}: {log}");
        assert!(log.contains(told), "{text}: {log}");
        assert_untouched(&prepared);
    }
    // The digest of the index covers the SHA-256 of each chunk. The XXH64 proves nothing about the author.
    let swapped = |stage: &Stage| {
        let chunk = &chunks(stage)[0];
        edit(chunk, |bytes| bytes[9] ^= 1);
        edit(&stage.path(".repot-payload/index"), |text| {
            let mut index = Index::parse(text).expect("an index");
            index.chunks[0].sum = xxh64(&fs::read(chunk).expect("a chunk"));
            *text = index.text().into_bytes();
            let digest = Hex(&repot_cli::payload::digest(&index)).to_string();
            stage.file("etc/repot.conf", format!("{base}payload=sha256:{digest}\n").as_bytes());
        });
    };
    let (prepared, end, log) = refused(&packed, swapped);
    assert_eq!(end, End::Killed(2), "{log}");
    assert!(log.contains("SHA-256 mismatch in chunk \".repot-payload/000000\""), "{log}");
    assert_untouched(&prepared);
    // payload= is set, but the image has no payload.
    let prepared = prepare(Fs::Tmpfs, |stage| {
        stage.program("init", programs::repot_init_payload());
        stage.program("sbin/init", programs::helper());
        stage.file("etc/repot.conf", format!("{base}payload=sha256:{digest}\n").as_bytes());
    });
    let mut running = prepared.start(&Setup::default());
    assert_eq!(running.wait(), End::Killed(2), "{}", running.log());
    assert!(running.log().contains("the image has no payload"), "{}", running.log());
}

#[test]
fn an_init_without_support_says_so() {
    let packed = pack(&[MOVE, QUICK_END], |stage| stage.plant(&one_of_each()));
    let (prepared, end, log) = refused(&packed, |stage| stage.program("init", programs::repot_init()));
    assert_eq!(end, End::Killed(2), "{log}");
    assert!(log.contains("without payload support"), "{log}");
    assert_untouched(&prepared);
}

/// The tool refuses what cannot be a payload, and leaves no file behind.
#[test]
fn what_cannot_be_a_payload_is_refused() {
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
    for (more, told) in [(&["--init", init][..], "that unpacks payloads"), (&["--compress", "xz"], "zstd")] {
        let error = pack(more).expect_err("refused");
        assert!(format!("{error:#}").contains(told), "{error:#}");
        assert!(!Path::new(&output).exists());
    }
}

/// The contents of a small file below `root`.
fn text_of(root: impl AsFd, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
    let file = openat(root, path, flags, Mode::empty()).expect("the file");
    std::io::read_to_string(File::from(file)).expect("text")
}
