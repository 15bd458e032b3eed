//! Where an archive ends, what is none, and compression.

use std::io::Write;

use crate::raw_tar::{Raw, archive};
use crate::{read, refused};

#[test]
fn an_archive_ends_with_zeros_and_only_they_may_follow() {
    let whole = archive(&[Raw::new(b'0', b"x", b"1")]);
    refused(&whole[..1024], "truncated at byte 1024: the blocks of zeros that end an archive are missing");
    // One block is enough, as for tar.
    assert!(read(&whole[..1536]).is_ok());
    let twice = read(&[&whole[..], &whole[..]].concat()).unwrap();
    assert!(twice.warnings[0].contains("the archive ends before byte 2048"), "{:?}", twice.warnings);
    refused(&[0; 10240], "the archive has no members");
    refused(&archive(&[Raw::new(b'V', b"Label", b"")]), "the archive has no members");
}

#[test]
fn what_is_no_archive_is_named() {
    let mut ext4 = vec![0; 1 << 20];
    ext4[0x438..0x43a].copy_from_slice(b"\x53\xef");
    refused(&ext4, "this is an ext2, ext3 or ext4 file system: mount it");
    let mut iso = vec![0; 64 << 10];
    iso[0x8001..0x8006].copy_from_slice(b"CD001");
    refused(&iso, "this is an ISO 9660 image");
    for (head, name) in [
        (&b"hsqs\0\0"[..], "a squashfs image"),
        (b"QFI\xfb\0\0", "a qcow2 disk image"),
        (b"PK\x03\x04", "a zip archive"),
    ] {
        for length in [head.len(), 100_000] {
            let mut bytes = head.to_vec();
            bytes.resize(length, 7);
            refused(&bytes, name);
        }
    }
    refused(b"070707000000", "a cpio archive in the old format (odc)");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&ext4).unwrap();
    refused(&packed.finish().unwrap(), "this is an ext2, ext3 or ext4 file system");
}

#[test]
fn every_compression_of_tar_archives_is_read() {
    let whole = archive(&[Raw::new(b'0', b"x", &b"data ".repeat(9000))]);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.tar"), &whole).unwrap();
    let programs = ["gzip -c", "bzip2 -c", "xz -c", "xz --format=lzma -c", "zstd -qc", "lz4 -qc", "lz4 -qlc"];
    for program in programs {
        let run = |script: String| {
            let out = std::process::Command::new("sh")
                .arg("-c")
                .arg(&script)
                .current_dir(directory.path())
                .output();
            let out = out.unwrap();
            assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
            out.stdout
        };
        let packed = run(format!("{program} a.tar"));
        let source = read(&packed).unwrap_or_else(|error| panic!("{program}: {error:#}"));
        assert!(source.tree.find(b"x").is_some() && source.warnings.is_empty(), "{program}");
        if program.contains("lzma") {
            continue;
        }
        let two = run(format!(
            "head -c 10000 a.tar | {program} > two; tail -c +10001 a.tar | {program} >> two; cat two"
        ));
        let source = read(&two).unwrap_or_else(|error| panic!("{program}: {error:#}"));
        assert!(source.tree.find(b"x").is_some() && source.warnings.is_empty(), "{program}");
        if program.starts_with('g') || program.starts_with('b') {
            let source =
                read(&[&two[..], b"junk"].concat()).unwrap_or_else(|error| panic!("{program}: {error:#}"));
            assert!(source.warnings[0].contains("bytes behind the compressed data"), "{program}");
        }
        refused(&packed[..packed.len() / 2], "");
    }
}
