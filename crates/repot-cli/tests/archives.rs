//! Tar archives of every dialect, made here byte by byte: what GNU tar and bsdtar read, `pack` reads alike.
//! `cargo xtask archives` compares with both on the archives of their own tests.

#[path = "support/raw_tar.rs"]
mod raw_tar;

use std::io::Write;

use raw_tar::{GNU, Raw, archive};
use repot_cli::source::oci::Choice;
use repot_cli::source::{Source, open};
use repot_cli::tree::{Id, Kind, Tree};

fn read(bytes: &[u8]) -> anyhow::Result<Source> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("a.tar");
    std::fs::write(&path, bytes)?;
    open(&path, &Choice::default(), directory.path())
}

/// A line for each entry: path, type, mode, owner, time, and what is in it.
fn listing(source: &Source) -> Vec<String> {
    let mut lines = Vec::new();
    below(&source.tree, "", Tree::ROOT, &mut lines);
    lines
}

fn below(tree: &Tree, path: &str, directory: Id, lines: &mut Vec<String>) {
    for (name, &id) in tree.entries(directory).into_iter().flatten() {
        let path = format!("{path}/{}", String::from_utf8_lossy(name));
        let inode = tree.inode(id);
        let what = if let Kind::File(contents) = &inode.kind {
            format!("\"{}\"", contents.read().unwrap().escape_ascii())
        } else {
            inode.kind.noun()
        };
        let a = &inode.attributes;
        let xattrs: Vec<_> = a
            .xattrs
            .iter()
            .map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
            .collect();
        let line =
            format!("{path} {:o} {}:{} {} {what} {}", inode.mode(), a.uid, a.gid, a.mtime, xattrs.join(" "));
        lines.push(line.trim_end().to_string());
        below(tree, &path, id, lines);
    }
}

#[track_caller]
fn expect(members: &[Raw], expected: &[&str], warnings: &[&str]) {
    let source = read(&archive(members)).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(listing(&source), expected);
    for (line, expected) in source.warnings.iter().zip(warnings) {
        assert!(line.contains(expected), "{line}: {expected}");
    }
    assert_eq!(source.warnings.len(), warnings.len(), "{:?}", source.warnings);
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let error = format!("{:#}", read(bytes).expect_err(expected));
    assert!(error.contains(expected), "{error}");
}

#[test]
fn labels_are_skipped_and_dumped_directories_are_directories() {
    let members = [
        Raw::new(b'V', b"Label", b"").with(257, GNU).with(108, b"        ").with(116, b"        "),
        Raw::new(b'D', b"./", b"Yfile\0Nother\0\0").with(257, GNU),
        Raw::new(b'D', b"d/", b"Yx\0\0").with(257, GNU),
        Raw::new(b'0', b"d/x", b"1").with(257, GNU),
        // Version 7 of Unix has no type for directories.
        Raw::new(0, b"old/", b"").with(257, &[0; 8]),
        Raw::new(b'7', b"together", b"2"),
    ];
    expect(
        &members,
        &[
            "/d 40644 7:8 9 a directory",
            "/d/x 100644 7:8 9 \"1\"",
            "/old 40644 7:8 9 a directory",
            "/together 100644 7:8 9 \"2\"",
        ],
        &[],
    );
}

#[test]
fn half_a_file_of_another_volume_is_refused() {
    let rest = Raw::new(b'M', b"rest", b"1").with(257, GNU);
    refused(&archive(&[rest]), "\"rest\", at byte 512: it begins in an earlier volume");
    let volume = Raw::records(b'g', &[("GNU.volume.filename", b"rest"), ("GNU.volume.offset", b"512")]);
    refused(&archive(&[volume.clone(), Raw::new(b'0', b"rest", b"1")]), "it begins in an earlier volume");
    expect(&[volume, Raw::new(b'0', b"next", b"1")], &["/next 100644 7:8 9 \"1\""], &[]);
}

#[test]
fn an_unknown_type_is_a_file_with_a_warning() {
    expect(&[Raw::new(b'q', b"x", b"1")], &["/x 100644 7:8 9 \"1\""], &["\"x\": unknown type 'q'"]);
}

#[test]
fn names_are_paths_and_nothing_leads_out() {
    let members = [
        Raw::new(b'5', b"/", b"").with(100, b"0000700\0"),
        Raw::new(b'5', b"/usr//", b""),
        Raw::new(b'0', b"/usr/./a", b"1"),
        Raw::link(b'1', b"//usr/b", b"/usr/a"),
        Raw::link(b'2', b"./l", b"/usr/../a"),
        Raw::new(b'0', b"", b"nameless"),
    ];
    expect(
        &members,
        &[
            "/l 120644 7:8 9 a symbolic link to /usr/../a",
            "/usr 40644 7:8 9 a directory",
            "/usr/a 100644 7:8 9 \"1\"",
            "/usr/b 100644 7:8 9 \"1\"",
        ],
        &["a member without a name was left out"],
    );
    refused(&archive(&[Raw::new(b'0', b"/a/../../b", b"")]), "a name with \"..\" would lead out");
    refused(&archive(&[Raw::link(b'1', b"x", b"../x")]), "a name with \"..\" would lead out");
}

/// tar keeps what is there, and so does `pack`, with a warning. In a layer the later member counts.
#[test]
fn a_directory_with_entries_and_a_file_above_stay() {
    let members = [
        Raw::new(b'5', b"d", b""),
        Raw::new(b'0', b"d/f", b"1"),
        Raw::new(b'0', b"d", b"new"),
        Raw::link(b'2', b"d", b"x"),
        Raw::new(b'0', b"file", b"22"),
        Raw::new(b'0', b"file/below/x", b"3"),
    ];
    let warnings = [
        "\"d\" and 1 more: left out, as by tar: a directory with entries has its name",
        "\"file/below/x\": left out, as by tar: its directory is a file",
    ];
    let source = read(&archive(&members)).unwrap();
    assert!(
        warnings.iter().all(|line| source.warnings.iter().any(|had| had == line)),
        "{:?}",
        source.warnings
    );
    let size = |name: &[u8]| {
        let Kind::File(contents) = &source.tree.inode(source.tree.find(name).unwrap()).kind else {
            return 99;
        };
        contents.len()
    };
    assert_eq!((size(b"d/f"), size(b"file")), (1, 2));
}

/// GNU tar reads records up to a NUL.
#[test]
fn zeros_behind_records_are_ignored() {
    let mut padded = Raw::records(b'x', &[("mtime", b"77")]);
    padded.data.extend([0; 9]);
    let padded = padded.clone().with(124, format!("{:011o}\0", padded.data.len()).as_bytes());
    let source = read(&archive(&[padded, Raw::new(b'0', b"a", b"x")])).unwrap();
    assert_eq!(source.tree.inode(source.tree.find(b"a").unwrap()).attributes.mtime, 77);
}

#[test]
fn numbers_may_be_blank_binary_or_negative() {
    let members = [
        Raw::new(b'0', b"blank", b"")
            .with(100, b"        ")
            .with(108, b"       \0")
            .with(116, b"        ")
            .with(136, b"            "),
        Raw::new(b'0', b"large", b"")
            .with(108, b"\x80\0\0\0\x01\0\0\0")
            .with(116, b"\x80\0\0\0\xff\xff\xff\xfe"),
        Raw::new(b'0', b"early", b"").with(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        Raw::records(b'x', &[("mtime", b"-1.5")]),
        Raw::new(b'0', b"earlier", b""),
        Raw::records(b'x', &[("mtime", b"99999999999")]),
        Raw::new(b'0', b"late", b""),
    ];
    expect(
        &members,
        &[
            "/blank 100000 0:0 0 \"\"",
            "/earlier 100644 7:8 0 \"\"",
            "/early 100644 7:8 0 \"\"",
            "/large 100644 16777216:4294967294 9 \"\"",
            "/late 100644 7:8 4294967295 \"\"",
        ],
        &["\"late\": its time is after 2106", "\"early\" and 1 more: its time is before 1970"],
    );
    refused(&archive(&[Raw::new(b'0', b"x", b"").with(108, b"root\0\0\0\0")]), "invalid owner");
}

/// Go writes what is not UTF-8 only into the records, and cuts it off in the header.
#[test]
fn a_name_in_the_records_says_what_is_a_directory() {
    let members = [
        Raw::records(b'x', &[("path", b"names/x")]),
        Raw::new(b'0', b"names/", b"data"),
        Raw::new(0, b"old/", b""),
    ];
    expect(
        &members,
        &["/names 40755 0:0 0 a directory", "/names/x 100644 7:8 9 \"data\"", "/old 40644 7:8 9 a directory"],
        &[],
    );
}

#[test]
fn attributes_come_from_every_kind_of_record() {
    let members = [
        Raw::records(b'g', &[("comment", b"all"), ("SCHILY.xattr.user.all", b"g")]),
        Raw::records(
            b'x',
            &[
                ("RHT.security.selinux", b"system_u:object_r:bin_t:s0"),
                ("LIBARCHIVE.xattr.user.a%3Db", b"aGVsbG8"),
                ("LIBARCHIVE.xattr.user.both", b"AA=="),
                ("SCHILY.xattr.user.both", b"\0"),
                ("SCHILY.acl.access", b"user::rwx,user:x:r-x:5,group::r--,mask::r-x,other::---"),
                ("uid", b"3000000000"),
                ("path", b"long\nname"),
                ("SCHILY.fflags", b"nodump"),
                ("VENDOR.secret", b"1"),
            ],
        ),
        Raw::new(b'0', b"short", b"1"),
        // Solaris uses another letter.
        Raw::records(b'X', &[("mtime", b"5")]),
        Raw::new(b'0', b"solaris", b""),
        Raw::records(b'x', &[("SCHILY.acl.ace", b"owner@:r::allow")]),
        Raw::new(b'0', b"nfs", b""),
    ];
    let acl = "system.posix_acl_access=\\x02\\x00\\x00\\x00\\x01\\x00\\x07\\x00\\xff\\xff\\xff\\xff\\x02\\x00\\x05\\x00\
               \\x05\\x00\\x00\\x00\\x04\\x00\\x04\\x00\\xff\\xff\\xff\\xff\\x10\\x00\\x05\\x00\\xff\\xff\\xff\\xff \
               \\x00\\x00\\xff\\xff\\xff\\xff";
    let acl = acl
        .replace(" \\x00\\x00\\xff\\xff\\xff\\xff", "\\x20\\x00\\x00\\x00\\xff\\xff\\xff\\xff")
        .replace("\\x20", " ");
    let first = format!(
        "/long\nname 100750 3000000000:8 9 \"1\" security.selinux=system_u:object_r:bin_t:s0 {acl} user.a=b=hello \
         user.all=g user.both=\\x00"
    );
    expect(
        &members,
        &[&first, "/nfs 100644 7:8 9 \"\" user.all=g", "/solaris 100644 7:8 5 \"\" user.all=g"],
        &[
            "\"nfs\": its NFSv4 ACL is lost",
            "\"long\\nname\": its file flags are lost",
            "\"long\\nname\": unknown PAX record VENDOR.secret",
        ],
    );
}

#[test]
fn acls_of_solaris_are_read() {
    let text = b"1000005\0user::rw-,user:x:r--:5,group::r--,mask:r--,other:---\0";
    let members = [Raw::new(b'A', b"f", text), Raw::new(b'0', b"f", b"")];
    let source = read(&archive(&members)).unwrap();
    let id = source.tree.find(b"f").unwrap();
    let acl = &source.tree.inode(id).attributes.xattrs[&b"system.posix_acl_access"[..]];
    assert_eq!((acl.len(), source.warnings.len()), (4 + 5 * 8, 0));
    let nfs = Raw::new(b'A', b"f", b"3000001\0owner@:rw-p--aARWcCos:-------:allow\0");
    expect(&[nfs, Raw::new(b'0', b"f", b"")], &["/f 100644 7:8 9 \"\""], &["\"f\": its NFSv4 ACL is lost"]);
}

#[test]
fn links_carry_data_where_pax_is_written_and_nowhere_else() {
    let linked = |dialect: &[u8], data: &[u8]| {
        let mut link = Raw::link(b'1', b"b", b"a").with(257, dialect).with(124, b"00000000003\0");
        link.data = data.to_vec();
        vec![
            Raw::new(b'0', b"a", b"one").with(257, dialect),
            link,
            Raw::new(b'0', b"c", b"3").with(257, dialect),
        ]
    };
    let expected = |data: &str| {
        [
            format!("/a 100644 7:8 9 \"{data}\""),
            format!("/b 100644 7:8 9 \"{data}\""),
            "/c 100644 7:8 9 \"3\"".to_string(),
        ]
    };
    let expected_lines = |members: &[Raw], data: &str| {
        let lines = expected(data);
        expect(members, &lines.each_ref().map(String::as_str), &[]);
    };
    // Old programs give the size of the file to a link without data.
    expected_lines(&linked(&[0; 8], b""), "one");
    expected_lines(&linked(GNU, b""), "one");
    expected_lines(&linked(raw_tar::USTAR, b""), "one");
    expected_lines(&linked(raw_tar::USTAR, b"two"), "two");
    let pax = [vec![Raw::records(b'x', &[("comment", b"x")])], linked(raw_tar::USTAR, b"two")].concat();
    expected_lines(&pax, "two");
    // Directories and symbolic links have sizes too.
    let sized = [Raw::new(b'5', b"d", b"").with(124, b"00000000777\0"), Raw::new(b'0', b"d/x", b"")];
    expect(&sized, &["/d 40644 7:8 9 a directory", "/d/x 100644 7:8 9 \"\""], &[]);
}

/// "ab" at 2 and "c" at 6, of 8 bytes.
const SPARSE: &str = "/s 100644 7:8 9 \"\\x00\\x00ab\\x00\\x00c\\x00\"";

#[test]
fn sparse_files_of_every_format_have_their_holes() {
    let number = |value: u64| format!("{value:011o}\0").into_bytes();
    let mut old = Raw::new(b'S', b"s", b"abc").with(257, GNU).with(483, &number(8));
    for (entry, (offset, length)) in [(2, 2), (6, 1), (8, 0)].into_iter().enumerate() {
        old.put(386 + 24 * entry, &[number(offset), number(length)].concat());
    }
    expect(&[old.clone()], &[SPARSE], &[]);
    // More pieces than fit: one empty entry, then a second block.
    let mut first =
        Raw::new(b'S', b"s", b"").with(257, GNU).with(483, &number(8)).with(124, b"00000000003\0");
    for entry in 0..4 {
        first.put(386 + 24 * entry, &[number(0), number(0)].concat());
    }
    first.put(482, b"\x01");
    let mut block = vec![0; 512];
    for (entry, (offset, length)) in [(2, 2), (6, 1)].into_iter().enumerate() {
        block[24 * entry..24 * entry + 24].copy_from_slice(&[number(offset), number(length)].concat());
    }
    block.extend(b"abc");
    first.data = block;
    expect(&[first, Raw::new(b'0', b"t", b"")], &[SPARSE, "/t 100644 7:8 9 \"\""], &[]);

    let zero = Raw::records(
        b'x',
        &[
            ("GNU.sparse.size", b"8"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"2"),
            ("GNU.sparse.numbytes", b"2"),
            ("GNU.sparse.offset", b"6"),
            ("GNU.sparse.numbytes", b"1"),
        ],
    );
    expect(&[zero, Raw::new(b'0', b"s", b"abc")], &[SPARSE], &[]);
    let one = Raw::records(
        b'x',
        &[
            ("GNU.sparse.size", b"8"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.map", b"2,2,6,1"),
            ("GNU.sparse.name", b"s"),
        ],
    );
    expect(&[one, Raw::new(b'0', b"GNUSparseFile.1/s", b"abc")], &[SPARSE], &[]);
    let modern = |size: &[u8]| {
        let records = [
            ("GNU.sparse.major", &b"1"[..]),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", b"8"),
            ("size", size),
        ];
        let mut data = b"# a comment\n2\n2\n2\n6\n1\n".to_vec();
        data.resize(512, 0);
        data.extend(b"abc");
        [Raw::records(b'x', &records), Raw::new(b'0', b"GNUSparseFile.1/s", &data)]
    };
    expect(&modern(b"515"), &[SPARSE], &[]);
    // Some versions of libarchive write the size of the whole file.
    expect(&modern(b"8"), &[SPARSE], &[]);
    // Solaris stores the holes.
    let solaris = Raw::records(b'X', &[("SUN.holesdata", b" 0 0 2 4 6 7 8")]);
    let solaris = [solaris, Raw::new(b'0', b"s", b"..ab..c.")];
    refused(
        &archive(&[Raw::records(b'x', &[("SUN.holesdata", b" 9 1")]), solaris[1].clone()]),
        "corrupt map",
    );
    expect(&solaris, &[SPARSE], &[]);
    for bad in ["2,2,1,1", "2,9", "99999999999999999999,1", "2", "x"] {
        let map = Raw::records(b'x', &[("GNU.sparse.size", b"8"), ("GNU.sparse.map", bad.as_bytes())]);
        if bad != "2" {
            refused(&archive(&[map, Raw::new(b'0', b"s", b"abc")]), "corrupt map of a sparse file");
        }
    }
}

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
