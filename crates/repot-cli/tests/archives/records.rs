//! Extended headers (pax): attributes, ACLs, and what they make of the members behind them.

use crate::raw_tar::{self, GNU, Raw, archive};
use crate::{expect, read};

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
