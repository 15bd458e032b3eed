//! Handmade trees: everything in a root file system that a careless mover loses.

use std::ffi::CString;

use super::{Data, Meta, Plant, What};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
const NODUMP: u32 = 0x40;
const NOATIME: u32 = 0x80;

/// Everything, for both file systems. What ramfs cannot have is skipped there.
#[must_use]
pub fn hostile() -> Vec<Plant> {
    let mut tree = vec![dir("", 0o755).times((1, 2), (3, 4)), dir("etc", 0o755), dir("sbin", 0o755)];
    tree.extend(modes());
    tree.extend(files());
    tree.extend(special());
    tree.extend(links());
    tree.extend(names());
    tree.extend(attributes());
    tree.extend(flags());
    tree.extend(clashes());
    tree
}

/// The part of [`hostile`] that an archive in newc format can carry and the kernel can unpack, without inode
/// flags.
#[must_use]
pub fn hostile_archive() -> Vec<Plant> {
    let tree = hostile();
    let kind_of = |path: &[u8]| tree.iter().find(|plant| plant.path == path).map(|plant| &plant.what);
    let fits = |plant: &&Plant| match &plant.what {
        // An archive has no holes, and with every byte the boots take longer: one large file is enough.
        What::File { len, data } => {
            (*len <= LARGEST_PACKED || plant.path == b"links/b/file")
                && data.iter().map(|part| part.len).sum::<u64>() == *len
        }
        // The kernel creates a new symlink for each name.
        What::HardLink(first) => !matches!(kind_of(first), Some(What::Symlink(_))),
        What::Dir | What::Symlink(_) | What::Char(..) | What::Block(..) | What::Fifo | What::Socket => true,
    };
    // The kernel skips names beyond PATH_MAX, and the images have their program under test at /repot.
    let place = |plant: &&Plant| plant.path.len() < 3000 && !plant.path.starts_with(b"repot");
    let flagless = |plant: &Plant| Plant { meta: Meta { flags: 0, ..plant.meta.clone() }, ..plant.clone() };
    let fitting: Vec<Plant> = tree.iter().filter(fits).filter(place).map(flagless).collect();
    let missing = |path: &[u8]| fitting.iter().all(|plant| plant.path != path);
    let linked = |plant: &&Plant| !matches!(&plant.what, What::HardLink(first) if missing(first));
    fitting.iter().filter(linked).cloned().collect()
}

/// Bytes of the second largest file in [`hostile_archive`].
const LARGEST_PACKED: u64 = 256 * KIB + 1;

/// One small entry of every kind, for sweeps that run the move thousands of times.
#[must_use]
pub fn one_of_each() -> Vec<Plant> {
    vec![
        dir("", 0o755),
        dir("a", 0o2775).owned(3, 100_000),
        file("a/small", 100).mode(0o4755),
        file("a/large", 2 * MIB + 5),
        sparse("a/sparse", 3 * MIB, &[(MIB, 4 * KIB)]),
        link("a/linked", "a/small"),
        new("a/symlink", What::Symlink(b"small".to_vec())),
        dir("a/b", 0o700),
        new("a/b/null", What::Char(1, 3)),
        new("a/b/disk", What::Block(7, 0)),
        new("a/b/fifo", What::Fifo),
        new("a/b/socket", What::Socket),
        file("a/b/labelled", 3).xattr("user.colour", b"green").xattr("security.capability", &capability()),
        file("a/b/fixed", 3).flags(IMMUTABLE),
    ]
}

/// Every permission bit, on files and directories, with owners above 65535.
fn modes() -> Vec<Plant> {
    let mut tree = vec![dir("modes", 0o755)];
    for mode in [0o0, 0o111, 0o444, 0o600, 0o666, 0o777, 0o1644, 0o2644, 0o2755, 0o4755, 0o6755, 0o7777] {
        tree.push(file(&format!("modes/file-{mode:04o}"), 3).mode(mode));
        tree.push(file(&format!("modes/owned-{mode:04o}"), 3).mode(mode).owned(70_000, 4_000_000_000));
        tree.push(dir(&format!("modes/dir-{mode:04o}"), mode).owned(33, 44));
        tree.push(file(&format!("modes/dir-{mode:04o}/inside"), 3).mode(0o640));
    }
    tree
}

/// Sizes around the page and the chunk, and holes at every place.
fn files() -> Vec<Plant> {
    let mut tree = vec![dir("files", 0o755)];
    let pages = [0, 1, 4095, 4096, 4097, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 128 * KIB, 256 * KIB + 1];
    let chunks =
        [512 * KIB, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 4 * MIB + 17, 9 * MIB + 4095];
    for len in pages.into_iter().chain(chunks) {
        tree.push(file(&format!("files/{len}"), len));
    }
    tree.push(dir("files/many", 0o755));
    for number in 0..400 {
        tree.push(file(&format!("files/many/{number}"), number % 4));
    }
    tree.push(sparse("files/only a hole", 40 * MIB, &[]));
    tree.push(sparse("files/only a small hole", 100, &[]));
    tree.push(sparse("files/leading hole", 5 * MIB, &[(4 * MIB, MIB)]));
    tree.push(sparse("files/trailing hole", 5 * MIB, &[(0, MIB)]));
    tree.push(sparse("files/hole across chunks", 6 * MIB + 1, &[(0, 4 * KIB), (5 * MIB, MIB + 1)]));
    tree.push(sparse("files/one page in the middle", 8 * MIB, &[(3 * MIB, 4 * KIB)]));
    let comb: Vec<_> = (0..64).map(|tooth| (tooth * 64 * KIB, 4 * KIB)).collect();
    tree.push(sparse("files/comb", 4 * MIB, &comb));
    tree.push(sparse("files/vast", 4 << 30, &[(0, 1), ((4 << 30) - 4 * KIB, 4 * KIB)]));
    tree
}

/// Devices, whiteouts, fifos, sockets, symlinks short and long.
fn special() -> Vec<Plant> {
    let mut tree = vec![dir("special", 0o755)];
    for (name, what) in [
        ("console", What::Char(5, 1)),
        ("null", What::Char(1, 3)),
        ("whiteout", What::Char(0, 0)),
        ("large number", What::Char(4000, 1_000_000)),
        ("sda", What::Block(8, 0)),
        ("block 0:0", What::Block(0, 0)),
        ("fifo", What::Fifo),
        ("socket", What::Socket),
    ] {
        tree.push(new(&format!("special/{name}"), what.clone()));
        tree.push(new(&format!("special/{name}, owned"), what).owned(1000, 100_000).mode(0o6660));
    }
    for len in [1_usize, 126, 127, 128, 255, 4095] {
        tree.push(new(&format!("special/symlink {len}"), What::Symlink(vec![b'x'; len])).owned(65_536, 2));
    }
    for (name, target) in
        [("loop", "loop"), ("dangling", "nowhere"), ("up", "../../../.."), ("absolute", "/special")]
    {
        tree.push(new(&format!("special/{name}"), What::Symlink(target.into())));
    }
    tree.push(new("special/raw", What::Symlink(b"\xff\n\x01".to_vec())));
    tree
}

/// Hard links to an inode of each kind, in one directory and across directories.
fn links() -> Vec<Plant> {
    let mut tree = vec![dir("links", 0o755), dir("links/b", 0o755), dir("links/a", 0o755)];
    for (name, what) in [
        ("file", What::File { len: 3 * MIB, data: vec![Data { at: 0, len: 3 * MIB }] }),
        ("empty", What::File { len: 0, data: vec![] }),
        ("symlink", What::Symlink(b"somewhere".to_vec())),
        ("char", What::Char(1, 5)),
        ("block", What::Block(1, 0)),
        ("fifo", What::Fifo),
        ("socket", What::Socket),
        ("whiteout", What::Char(0, 0)),
    ] {
        // The first path is in a directory between the two others, in whatever order a mover walks.
        let first = format!("links/b/{name}");
        tree.push(new(&first, what).owned(7, 8).mode(0o4711));
        tree.push(link(&format!("links/{name}"), &first));
        tree.push(link(&format!("links/a/{name}"), &first));
        tree.push(link(&format!("links/b/{name} again"), &first));
    }
    for number in 0..300 {
        tree.push(link(&format!("links/a/many {number}"), "links/b/file"));
    }
    tree
}

/// Names of the maximum length and of any bytes.
fn names() -> Vec<Plant> {
    let mut tree = vec![dir("names", 0o755)];
    let long = "n".repeat(255);
    let raw: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    for name in [
        long.as_bytes(),
        &raw,
        b"new\nline",
        b" ",
        b"...",
        b"..x",
        b"-rf",
        b"\xc3\x28",
        b"*",
        b"\\",
        b"\x7f",
        b"TRAILER!!!",
        b"\xff\xfe",
        "höhe".as_bytes(),
        b"back\\slash",
    ] {
        let path = [b"names/", name].concat();
        tree.push(Plant {
            path: path.clone(),
            what: What::Dir,
            meta: Meta { mode: 0o755, ..Meta::default() },
        });
        let path = [&path, b"/".as_slice(), name].concat();
        tree.push(Plant { path, what: content(5), meta: Meta::default() });
    }
    // Twenty directories with names of the maximum length: beyond PATH_MAX.
    let mut path = "names/deep".to_owned();
    tree.push(dir(&path, 0o755));
    for _ in 0..20 {
        path = format!("{path}/{}", "d".repeat(255));
        tree.push(dir(&path, 0o750));
    }
    tree.push(file(&format!("{path}/bottom"), 10));
    let mut path = "names/levels".to_owned();
    tree.push(dir(&path, 0o755));
    for level in 0..150 {
        path = format!("{path}/level-{level}");
        tree.push(dir(&path, 0o755));
    }
    tree.push(file(&format!("{path}/bottom"), 1));
    tree
}

/// Extended attributes of every namespace on every kind of entry that can have them, ACLs, capabilities,
/// extreme times.
fn attributes() -> Vec<Plant> {
    let access = acl(&[(1, 6, !0), (2, 4, 70_000), (4, 4, !0), (8, 2, 1000), (16, 6, !0), (32, 0, !0)]);
    let default = acl(&[(1, 7, !0), (2, 5, 1), (4, 5, !0), (16, 7, !0), (32, 1, !0)]);
    vec![
        dir("attributes", 0o755).xattr("user.of", b"a directory"),
        file("attributes/user", 5).xattr("user.colour", b"green").xattr("user.empty", b""),
        file("attributes/raw", 5).xattr("user.\u{1}\u{e9}\n", &(0..=255).collect::<Vec<u8>>()),
        file("attributes/large", 5)
            .xattr("user.large", &vec![b'v'; 30_000])
            .xattr("trusted.large", &vec![0; 60_000]),
        file("attributes/long name", 5).xattr(&format!("user.{}", "n".repeat(250)), b"x"),
        file("attributes/trusted", 5).xattr("trusted.overlay.opaque", b"y").xattr("security.repot", b"label"),
        file("attributes/ping", 4097).mode(0o755).xattr("security.capability", &capability()),
        file("attributes/large ping", 3 * MIB + 1)
            .mode(0o6755)
            .owned(9, 9)
            .xattr("security.capability", &capability()),
        new("attributes/symlink", What::Symlink(b"user".to_vec())).xattr("trusted.on", b"a symlink"),
        new("attributes/fifo", What::Fifo).xattr("trusted.on", b"a fifo").xattr("security.repot", b"x"),
        new("attributes/device", What::Char(1, 7)).xattr("trusted.on", b"a device"),
        new("attributes/socket", What::Socket).xattr("trusted.on", b"a socket"),
        new("attributes/whiteout", What::Char(0, 0)).xattr("trusted.on", b"a whiteout"),
        file("attributes/acl", 5).mode(0o660).xattr("system.posix_acl_access", &access),
        new("attributes/acl on a fifo", What::Fifo).mode(0o660).xattr("system.posix_acl_access", &access),
        dir("attributes/acl and default", 0o2770)
            .owned(5, 6)
            .xattr("system.posix_acl_access", &access)
            .xattr("system.posix_acl_default", &default),
        // Created before the default ACL is set, so they must not inherit it, neither before nor after.
        file("attributes/acl and default/file", 5).mode(0o600),
        dir("attributes/acl and default/dir", 0o700),
        file("attributes/acl and default/dir/file", 5).mode(0o666),
        dir("attributes/setgid", 0o2755).owned(0, 50),
        file("attributes/setgid/other group", 5).owned(0, 60),
        dir("attributes/setgid/plain dir", 0o755).owned(0, 60),
        file("attributes/before 1970", 5).times((-1_000_000_000, 1), (-1, 999_999_999)),
        file("attributes/after 2038", 5).times((1 << 32, 1), ((1 << 33) + 5, 123_456_789)),
        file("attributes/at 0", 0).times((0, 0), (0, 0)),
        new("attributes/old symlink", What::Symlink(b"x".to_vec())).times((5, 6), (7, 8)),
        dir("attributes/old directory", 0o555).times((11, 12), (13, 14)),
        file("attributes/old directory/file", 1),
    ]
}

/// Inode flags, on files and on directories that are not empty.
fn flags() -> Vec<Plant> {
    vec![
        dir("flags", 0o755),
        file("flags/immutable", 4097).flags(IMMUTABLE),
        file("flags/append only", 4097).flags(APPEND),
        file("flags/large and both", 2 * MIB + 1).flags(IMMUTABLE | APPEND),
        file("flags/nodump", 5).flags(NODUMP),
        file("flags/noatime", 5).flags(NOATIME),
        dir("flags/immutable directory", 0o755).flags(IMMUTABLE),
        file("flags/immutable directory/file", 5),
        file("flags/immutable directory/immutable file", 5).flags(IMMUTABLE | NODUMP),
        dir("flags/immutable directory/directory", 0o755).flags(NOATIME),
        dir("flags/append directory", 0o755).flags(APPEND),
        file("flags/append directory/file", 5),
        file("flags/two names", 5).flags(IMMUTABLE),
        link("flags/two names, second", "flags/two names"),
        link("flags/immutable directory/third name", "flags/two names"),
        file("flags/large, two names", 2 * MIB + 1).flags(APPEND),
        link("flags/large, two names, second", "flags/large, two names"),
    ]
}

/// Names that a mover might want to use itself, and directories that movers forget.
fn clashes() -> Vec<Plant> {
    let mut tree = vec![dir("mnt", 0o700).owned(12, 13), file("mnt/file", 5), dir("mnt/root", 0o755)];
    for name in
        [".repot", ".repot.new", ".repot.old", ".repot.tmp", ".repot-tmp", ".new", ".old", "repot", "@"]
    {
        tree.push(file(&format!("mnt/{name}"), 5));
        tree.push(dir(name, 0o711));
        tree.push(file(&format!("{name}/{name}"), 5));
    }
    for name in
        ["proc", "sys", "run", "tmp", "old_root", "oldroot", "newroot", "sysroot", "root", "lost+found"]
    {
        tree.push(dir(name, 0o1777));
        tree.push(file(&format!("{name}/file"), 5));
    }
    tree
}

fn new(path: &str, what: What) -> Plant {
    Plant { path: path.into(), what, meta: Meta::default() }
}

fn content(len: u64) -> What {
    What::File { len, data: if len == 0 { vec![] } else { vec![Data { at: 0, len }] } }
}

/// A directory.
#[must_use]
pub fn dir(path: &str, mode: u32) -> Plant {
    new(path, What::Dir).mode(mode)
}

fn file(path: &str, len: u64) -> Plant {
    new(path, content(len))
}

fn sparse(path: &str, len: u64, data: &[(u64, u64)]) -> Plant {
    let data = data.iter().map(|&(at, len)| Data { at, len }).collect();
    new(path, What::File { len, data })
}

fn link(path: &str, first: &str) -> Plant {
    new(path, What::HardLink(first.into()))
}

impl Plant {
    /// With other permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Plant {
        self.meta.mode = mode;
        self
    }

    /// With another owner and group.
    #[must_use]
    pub fn owned(mut self, uid: u32, gid: u32) -> Plant {
        (self.meta.uid, self.meta.gid) = (uid, gid);
        self
    }

    /// With other times: last access, last change.
    #[must_use]
    pub fn times(mut self, atime: (i64, u32), mtime: (i64, u32)) -> Plant {
        (self.meta.atime, self.meta.mtime) = (atime, mtime);
        self
    }

    /// With one more extended attribute.
    ///
    /// # Panics
    /// If the name has a NUL byte.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Plant {
        self.meta.xattrs.push((CString::new(name).expect("no NUL"), value.to_vec()));
        self
    }

    /// With inode flags.
    #[must_use]
    pub fn flags(mut self, flags: u32) -> Plant {
        self.meta.flags = flags;
        self
    }
}

/// The value of an ACL attribute (posix_acl_xattr.h, version 2): entries of tag, permissions, id.
#[must_use]
pub fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// The value of a file capability (linux/capability.h, revision 2): cap_net_raw, effective.
#[must_use]
pub fn capability() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}
