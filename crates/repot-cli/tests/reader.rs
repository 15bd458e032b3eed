//! The nine cases of the kernel's own test of its newc reader (`init/initramfs_test.c`), and properties of
//! our reader.

use std::io::{self, Read};

use proptest::prelude::*;
use repot_cli::newc::{Damage, Header, Item, Reader, Writer};

/// A member as the kernel's test writes it. Any field can be wrong.
struct Raw<'a> {
    magic: &'a str,
    header: Header,
    namesize: usize,
    sum: u32,
    data: &'a [u8],
}

impl<'a> Raw<'a> {
    fn file(name: &str, data: &'a [u8]) -> Raw<'a> {
        let header = Header { ino: 1, mode: 0o100_777, nlink: 1, devminor: 1, ..named(name.as_bytes()) };
        Raw { magic: "070701", namesize: header.name.len() + 1, header, sum: 0, data }
    }

    fn bytes(&self, into: &mut Vec<u8>) {
        let h = &self.header;
        let fields = [
            h.ino,
            h.mode,
            h.uid,
            h.gid,
            h.nlink,
            h.mtime,
            u32::try_from(self.data.len()).unwrap(),
            h.devmajor,
            h.devminor,
            h.rdevmajor,
            h.rdevminor,
            u32::try_from(self.namesize).unwrap(),
            self.sum,
        ];
        into.extend(self.magic.bytes());
        into.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
        let end = into.len() + self.namesize;
        into.extend(&h.name);
        into.resize(end, 0);
        into.resize(into.len().next_multiple_of(4), 0);
        into.extend(self.data);
        into.resize(into.len().next_multiple_of(4), 0);
    }
}

fn named(name: &[u8]) -> Header {
    Header { name: name.to_vec(), ..Header::default() }
}

fn archive(members: &[Raw<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    members.iter().for_each(|member| member.bytes(&mut bytes));
    bytes
}

/// Everything in an archive with its data, up to its end or to the first error.
fn read(bytes: &[u8]) -> (Vec<(Item, Vec<u8>)>, Option<io::Error>) {
    let mut reader = Reader::new(bytes, 0);
    let mut items = Vec::new();
    loop {
        match reader.next_item() {
            Ok(None) => return (items, None),
            Err(error) => return (items, Some(error)),
            Ok(Some(item)) => {
                let mut data = Vec::new();
                if let Err(error) = reader.read_to_end(&mut data) {
                    return (items, Some(error));
                }
                items.push((item, data));
            }
        }
    }
}

fn whole(bytes: &[u8]) -> Vec<(Item, Vec<u8>)> {
    let (items, error) = read(bytes);
    assert!(error.is_none(), "{error:?}");
    items
}

#[track_caller]
fn names(items: &[(Item, Vec<u8>)]) -> Vec<String> {
    items
        .iter()
        .filter_map(|(item, _)| match item {
            Item::Member(header) => Some(header.name.escape_ascii().to_string()),
            Item::Skipped(..) | Item::Trailer => None,
        })
        .collect()
}

fn complaint(bytes: &[u8]) -> String {
    read(bytes).1.expect("damage").to_string()
}

#[test]
fn extract() {
    let mut file = Raw::file("initramfs_test_extract", b"");
    (file.header.uid, file.header.gid, file.header.mtime) = (12, 34, 56);
    let mut directory = Raw::file("initramfs_test_extract_dir", b"");
    (directory.header.mode, directory.header.mtime) = (0o040_777, 57);
    let expected = [Item::Member(file.header.clone()), Item::Member(directory.header.clone()), Item::Trailer];
    let items = whole(&archive(&[file, directory, Raw::file("TRAILER!!!", b"")]));
    assert_eq!(items.into_iter().map(|(item, _)| item).collect::<Vec<_>>(), expected);
}

#[test]
fn fname_overrun() {
    let mut bytes = archive(&[Raw::file("initramfs_test_fname_overrun", b"")]);
    while let Some(zero) = bytes.iter().rposition(|&byte| byte != b'P').filter(|&last| bytes[last] == 0) {
        bytes[zero] = b'P';
    }
    assert!(
        complaint(&bytes)
            .starts_with("a name has no NUL at its end: \"initramfs_test_fname_overrun\" at byte 0")
    );
}

#[test]
fn data() {
    let items = whole(&archive(&[Raw::file("initramfs_test_data", b"ASDF")]));
    assert_eq!(items[0].1, b"ASDF");
}

#[test]
fn csum() {
    let sum = "ASDF".bytes().map(u32::from).sum();
    let with = |sum| Raw { magic: "070702", sum, ..Raw::file("initramfs_test_csum", b"ASDF") };
    let without = || Raw { sum: 5555, ..Raw::file("initramfs_test_csum_not_here", b"ASDF") };
    assert_eq!(whole(&archive(&[with(sum), without()])).len(), 2);
    assert!(complaint(&archive(&[with(sum - 1), without()])).starts_with("wrong checksum"));
}

#[test]
fn hardlink() {
    let mut first = Raw::file("initramfs_test_hardlink", b"");
    let mut last = Raw::file("initramfs_test_hardlink_link", b"ASDF");
    (first.header.nlink, last.header.nlink) = (2, 2);
    let items = whole(&archive(&[first, last]));
    assert_eq!((items[0].1.len(), items[1].1.len()), (0, 4));
}

#[test]
fn many() {
    let files: Vec<_> = (0..1000).map(|i| Raw::file(&format!("initramfs_test_many-{i}"), b"")).collect();
    assert_eq!(names(&whole(&archive(&files))).len(), 1000);
}

#[test]
fn fname_pad() {
    let padded = Raw { namesize: 4096 - 110, ..Raw::file("padded_fname", b"aligned at 4K") };
    let bytes = archive(&[padded]);
    assert!(bytes[4096..].starts_with(b"aligned"));
    let items = whole(&bytes);
    assert_eq!(
        (names(&items), items[0].1.as_slice()),
        (vec!["padded_fname".to_string()], &b"aligned at 4K"[..])
    );
}

#[test]
fn fname_path_max() {
    let long = |prefix: &str, len: usize| format!("{prefix}{}", "/".repeat(len - prefix.len()));
    let mut oversize = Raw::file(&long("fname_oversize", 4096), b"this file data will not be unpacked");
    let mut ok = Raw::file(&long("fname_ok", 4095), b"");
    (oversize.header.mode, ok.header.mode) = (0o040_777, 0o040_777);
    let items = whole(&archive(&[oversize, ok]));
    assert!(matches!(items[0].0, Item::Skipped(_, "its name is longer than PATH_MAX")));
    assert_eq!(names(&items), ["fname_ok"]);
}

#[test]
fn hdr_hex() {
    for prefix in ["0x", "0X", " +", "-0", "  "] {
        let mut bytes =
            archive(&[Raw::file("initramfs_test_hdr_hex", b"this file data will not be unpacked")]);
        bytes[22..24].copy_from_slice(prefix.as_bytes());
        assert!(complaint(&bytes).starts_with("corrupt header"), "{prefix}");
    }
}

#[test]
fn a_wrong_size_does_not_allocate() {
    let mut bytes = archive(&[Raw::file("small", b"data")]);
    bytes[54..62].copy_from_slice(b"ffffffff");
    assert_eq!(
        complaint(&bytes),
        "truncated: 4294967291 bytes of a member's data are missing at byte 120 of the archive"
    );
}

prop_compose! {
    fn member()(
        components in prop::collection::vec(prop::collection::vec(1u8.., 1..100), 1..4),
        kind in prop::sample::select(vec![0o100_000, 0o040_000, 0o120_000, 0o020_000, 0o060_000, 0o010_000, 0o140_000]),
        data in prop::collection::vec(any::<u8>(), 0..200),
        numbers in any::<[u32; 9]>(),
    ) -> (Header, Vec<u8>) {
        // No slash within a component, and none that is ".": the reader would leave it out.
        let plain = |byte: u8| if matches!(byte, b'/' | b'.') { b'_' } else { byte };
        let components: Vec<Vec<u8>> =
            components.into_iter().map(|name| name.into_iter().map(plain).collect()).collect();
        let name = components.join(&b'/');
        let [ino, permissions, uid, gid, nlink, mtime, devminor, rdevmajor, rdevminor] = numbers;
        let data = if matches!(kind, 0o100_000 | 0o120_000) { data } else { Vec::new() };
        let mode = kind | permissions & 0o7777;
        let filesize = u32::try_from(data.len()).unwrap();
        (Header { name, ino, mode, uid, gid, nlink, mtime, filesize, devmajor: 0, devminor, rdevmajor, rdevminor }, data)
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(members in prop::collection::vec(member(), 0..20)) {
        let mut writer = Writer::new(Vec::new());
        for (header, data) in &members {
            writer.append(header, data).unwrap();
        }
        let items = whole(&writer.finish().unwrap());
        let mut expected: Vec<_> = members.into_iter().map(|(header, data)| (Item::Member(header), data)).collect();
        expected.push((Item::Trailer, Vec::new()));
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn a_wrong_byte_is_read_or_located(members in prop::collection::vec(member(), 1..8), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut writer = Writer::new(Vec::new());
        for (header, data) in &members {
            writer.append(header, data).unwrap();
        }
        let mut bytes = writer.finish().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(1 + cut.index(bytes.len()));
        if let Some(error) = read(&bytes).1 {
            let damage = error.get_ref().and_then(|inner| inner.downcast_ref::<Damage>());
            prop_assert!(damage.is_some_and(|damage| damage.offset <= bytes.len() as u64), "{}", error);
        }
    }
}

/// The kernel takes a name as a path: LinuxKit's builder writes `bin/`, bsdtar `./init`, others `/init`.
#[test]
fn names_are_paths() {
    let directory = |name: &str| {
        let mut raw = Raw::file(name, b"");
        raw.header.mode = 0o040_755;
        raw
    };
    let members = [
        directory("./"),
        directory("bin/"),
        Raw::file("./init", b"1"),
        Raw::file("/init", b"2"),
        Raw::file("bin//./sh", b"3"),
        Raw::file("bin/../up", b"4"),
        Raw::file("./TRAILER!!!", b"5"),
        Raw::file("file/", b"6"),
        directory("gone/."),
    ];
    let (items, error) = read(&archive(&members));
    assert!(error.is_none());
    let names: Vec<_> = items
        .iter()
        .map(|(item, _)| match item {
            Item::Member(header) => String::from_utf8_lossy(&header.name).into_owned(),
            Item::Skipped(_, why) => format!("skipped: {why}"),
            Item::Trailer => "the end".into(),
        })
        .collect();
    let slash = "skipped: its name ends with a slash, but it is not a directory";
    let expected = [".", "bin", "init", "init", "bin/sh", "bin/../up", "TRAILER!!!", slash, "gone/."];
    assert_eq!(names, expected);
}
