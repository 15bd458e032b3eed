//! Payloads that are corrupt, wrong, or too large: the error names the chunk, and nothing is booted.
use std::fs;

use repot::payload::index::{Index, Pages};
use repot_tests::payload_image::runs::{MOVE, QUICK_END, assert_untouched, refused, with_faults};
use repot_tests::payload_image::{chunks, edit, of_several_chunks, pack, unpacked};
use repot_tests::programs;
use repot_tests::sandbox::{End, Setup};
use repot_tests::stage::Stage;
use repot_tests::trees::{Fs, one_of_each};
use rustix::io::Errno;

type Spoil = fn(&Stage);

/// Errors in chunks or index are reported before anything changes, with the name of the chunk.
#[test]
fn corruption_is_found_before_anything_is_unpacked() {
    const SOME: usize = 5;
    let cases: [(&str, &[&str], Spoil); 16] = [
        ("a bit in a chunk", &["XXH64", "000005"], |stage| {
            edit(&chunks(stage)[SOME], |bytes| bytes[77_777] ^= 4)
        }),
        ("a bit in the last chunk", &["XXH64", "0000"], |stage| {
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
        ("a chunk doubled", &["XXH64", "000006"], |stage| {
            fs::copy(&chunks(stage)[SOME], &chunks(stage)[SOME + 1]).expect("copied");
        }),
        ("a chunk more", &["not in the index", "999999"], |stage| {
            fs::copy(&chunks(stage)[SOME], stage.path(".repot-payload/999999")).expect("copied");
        }),
        ("chunks out of order", &["XXH64", "00000"], |stage| {
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
        ("an index cut off", &["index:", "corrupt or truncated"], |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("a bit in an index", &["index:", "corrupt or truncated"], |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| bytes[17] ^= 1);
        }),
        ("an index that lies about a frame", &["frame header does not match the index"], |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| {
                let mut index = Index::parse(bytes).expect("an index");
                index.frames[2].start -= 1;
                index.frames[1].size -= 1;
                index.frames[2].size += 1;
                *bytes = index.text().into_bytes();
            });
        }),
        ("an index of a newer format", &["newer"], |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| bytes[7] = b'3')
        }),
        ("an index that promises too much", &["does not fit", "more memory"], |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| {
                let mut index = Index::parse(bytes).expect("an index");
                for frame in &mut index.frames {
                    frame.content = 1 << 50;
                }
                index.bytes = 1 << 50;
                index.pages.numbers = [1 << 38; 3];
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
        assert!(!log.contains("chunks of the payload are already freed"), "{what}: {log}");
        assert_untouched(&prepared);
    }
}

/// Errors that only appear while unpacking: past the point of no return, no init runs on half a tree.
#[test]
fn a_wrong_index_is_found_at_the_end_at_the_latest() {
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
            log.contains("entry or byte count does not match")
                && log.contains("chunks of the payload are already freed"),
            "{log}"
        );
    }
}

/// Each piece is compared with the header of its file.
#[test]
fn a_wrong_index_of_pieces_is_found() {
    type Lie = fn(&mut Index);
    let packed = pack(&[MOVE, QUICK_END, "threads=1"], of_several_chunks);
    // Frame 1 is the header of a file of 5 MiB, frames 2 and 3 are its contents.
    let lies: [(Lie, &str); 3] = [
        (|index| index.frames[4].more = true, "pieces do not match the file: \"data/large of frame 3"),
        (|index| index.frames[3].more = false, "pieces do not match the file: \"data/large of frame 2"),
        (|index| index.frames[2].more = false, "archive truncated within entry \"data/large of frame 1"),
    ];
    for (lie, told) in lies {
        let (_, end, log) = refused(&packed, |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| {
                let mut index = Index::parse(bytes).expect("an index");
                lie(&mut index);
                *bytes = index.text().into_bytes();
            });
        });
        assert_eq!(end, End::Killed(2), "{told}: {log}");
        assert!(log.contains(told), "{told}: {log}");
    }
}

/// If the kernel could not unpack the whole image, the error says so.
#[test]
fn a_truncated_image_is_reported_as_such() {
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

/// A tmpfs that is too small because the index claims less than the tree takes.
#[test]
fn a_full_tmpfs_is_logged_by_entry_frame_and_chunk() {
    type Lie = fn(&mut Index);
    let cases: [(&str, Lie, &[&str]); 2] = [
        (
            "size=4m",
            |index| index.pages = Pages { numbers: [600, 150, 40], ..Pages::default() },
            &["payload: pwrite64 \"data/"],
        ),
        (
            "nr_inodes=45",
            |index| {
                (index.entries, index.inodes) = (1, 1);
                index.pages = Pages { numbers: [index.bytes / 4096, 1, 1], ..Pages::default() };
            },
            &["payload: openat \"data/"],
        ),
    ];
    for (setting, lie, told) in cases {
        let packed = pack(&[MOVE, QUICK_END, setting], |stage| {
            of_several_chunks(stage);
            for number in 0..40 {
                stage.file(&format!("data/small/{number}"), b"small");
            }
        });
        let (_, end, log) = refused(&packed, |stage| {
            edit(&stage.path(".repot-payload/index"), |bytes| {
                let mut index = Index::parse(bytes).expect("an index");
                lie(&mut index);
                *bytes = index.text().into_bytes();
            });
        });
        assert_eq!(end, End::Killed(2), "{setting}: {log}");
        assert!(told.iter().any(|call| log.contains(call)), "{setting}: {log}");
        for word in [
            " of frame ",
            " in chunk 0000",
            "ENOSPC (no space left",
            "chunks of the payload are already freed",
        ] {
            assert!(log.contains(word), "{setting}: {word}: {log}");
        }
    }
}

#[test]
fn a_root_without_an_init_is_not_booted() {
    let packed = pack(&[MOVE, QUICK_END], |stage| stage.file("sh", b"#!/bin/sh\n"));
    let remove = |stage: &Stage| stage.file("sbin/init", b"not executable");
    let (_, end, log) = refused(&packed, remove);
    assert_eq!(end, End::Killed(2), "{log}");
    assert!(log.contains("no init is executable") && log.contains("/sbin/init"), "{log}");
}

/// Files outside of a payload are not a system, even if inspecting it fails. That is tried twice.
#[test]
fn nothing_is_executed_beside_an_unread_payload() {
    let packed = pack(&[MOVE, QUICK_END], |stage| stage.plant(&one_of_each()));
    for times in [1, 2] {
        let prepared = unpacked(Fs::Tmpfs, &[], &[&packed.image], |stage| {
            stage.program("sbin/init", programs::helper());
        });
        let mut looks = 0;
        let (end, running) = with_faults(&prepared, &[libc::SYS_fstatfs], |_| {
            looks += 1;
            (looks <= times).then_some(Errno::IO)
        });
        let log = running.log();
        if times == 1 {
            assert_eq!(end, End::Init("ready".into()), "{log}");
            assert!(log.contains("repot: payload: the root is compressed in the image"), "{log}");
        } else {
            assert_eq!(end, End::Killed(2), "{log}");
            assert!(log.contains("fstatfs") && log.contains("the payload was not unpacked"), "{log}");
            assert_untouched(&prepared);
        }
    }
}
