//! Sparse files of every format.

use crate::raw_tar::{GNU, Raw, archive};
use crate::{expect, refused};

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
