//! Names, types and numbers in headers.

use crate::raw_tar::{GNU, Raw, archive};
use crate::{expect, read, refused};
use repot_cli::tree::Kind;

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
