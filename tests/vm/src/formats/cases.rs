//! The images, and what the kernels make of them.

use super::elf;
use super::image::{Compress, Member, Parts, archive, bootconfig, named, plain};
use anyhow::Result;

/// What a boot must show: on every kernel, or on each of [`super::SERIES`].
pub(super) enum Expect {
    All(&'static str),
    Each([&'static str; 4]),
}

impl Expect {
    pub(super) fn on(&self, kernel: usize) -> &'static str {
        match self {
            Expect::All(text) => text,
            Expect::Each(texts) => texts[kernel],
        }
    }
}

/// One image.
pub(super) struct Case {
    /// The kernel on which the tests boot it.
    pub(super) sample: Option<&'static str>,
    /// Builds the image.
    pub(super) image: fn(&Parts) -> Result<Vec<u8>>,
    /// What it shows.
    pub(super) rows: &'static [Row],
}

/// One row of the table.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// What the result shows.
    pub(super) paths: &'static [&'static str],
    pub(super) expect: Expect,
    /// A part of what `repot inspect` says; empty if it says nothing about this.
    pub(super) inspect: &'static str,
}

const PANICS: &str = "panics";
const FOUND: &str = "`second` is a file of 6 bytes";
const LOST: &str = "no `second`";
const DIR: u32 = 0o040_755;
pub(super) const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

use Expect::{All, Each};

const fn row(
    name: &'static str,
    paths: &'static [&'static str],
    expect: Expect,
    inspect: &'static str,
) -> Row {
    Row { name, paths, expect, inspect }
}

/// Whether a second archive or member arrives.
pub(super) const fn second_of(name: &'static str, expect: Expect, inspect: &'static str) -> Row {
    row(name, &["second"], expect, inspect)
}

pub(super) const fn case(
    sample: Option<&'static str>,
    image: fn(&Parts) -> Result<Vec<u8>>,
    rows: &'static [Row],
) -> Case {
    Case { sample, image, rows }
}

pub(super) fn second() -> Vec<u8> {
    archive(&[Member::new("second", FILE, b"second")])
}

/// The base with a second file.
fn with_second(parts: &Parts) -> Vec<u8> {
    parts.base(&[Member::new("second", FILE, b"second")])
}

/// The base in this compression, zeros up to a block, and a second archive.
fn behind(parts: &Parts, compress: Compress) -> Result<Vec<u8>> {
    let mut image = compress.run(&parts.base(&[]))?;
    image.resize((image.len() + 4).next_multiple_of(512), 0);
    image.extend(second());
    Ok(image)
}

pub(super) const CASES: &[Case] = &[
    case(
        Some("5.10"),
        |parts| behind(parts, Compress::Zstd),
        &[second_of("zstd, zeros, an archive", All(FOUND), "")],
    ),
    case(
        None,
        |parts| behind(parts, Compress::Gzip),
        &[second_of("gzip, zeros, an archive", All(FOUND), "")],
    ),
    case(
        None,
        |parts| behind(parts, Compress::Xz("crc32")),
        &[second_of("xz, zeros, an archive", All(FOUND), "")],
    ),
    case(
        Some("7"),
        |parts| behind(parts, Compress::Lz4),
        &[second_of("lz4, zeros, an archive", All(FOUND), "a segment follows an lz4 segment")],
    ),
    case(
        None,
        |parts| behind(parts, Compress::None),
        &[second_of("no compression, zeros, an archive", All(FOUND), "")],
    ),
    case(
        None,
        |parts| Ok([Compress::Gzip.run(&parts.base(&[]))?, Compress::Zstd.run(&second())?].concat()),
        &[second_of("gzip, then zstd without zeros between", All(FOUND), "")],
    ),
    case(
        None,
        |parts| {
            let mut image = Compress::Zstd.run(&parts.base(&[]))?;
            image.resize(image.len() / 4 * 4 + 5, 0);
            Ok([image, second()].concat())
        },
        &[second_of(
            "zstd, then an archive that is not at a multiple of 4",
            All(LOST),
            "neither a cpio archive",
        )],
    ),
    case(
        None,
        |parts| Ok([Compress::Lz4.run(&parts.base(&[]))?, Compress::Gzip.run(&second())?].concat()),
        &[second_of("lz4, then gzip without zeros between", All(LOST), "which has no end mark")],
    ),
    case(
        None,
        |parts| behind(parts, Compress::Xz("none")),
        &[second_of("xz without a check", All(FOUND), "")],
    ),
    case(
        Some("6.12"),
        |parts| behind(parts, Compress::Xz("crc64")),
        &[second_of("xz with the check crc64", All(PANICS), "the check crc64")],
    ),
    case(
        None,
        |parts| behind(parts, Compress::Xz("sha256")),
        &[second_of("xz with the check sha256", All(PANICS), "the check sha256")],
    ),
    case(
        None,
        |parts| Compress::ModernLz4.run(&parts.base(&[])),
        &[second_of("lz4 in its modern frame", All(PANICS), "lz4 in its modern frame")],
    ),
    case(
        Some("5.10"),
        |parts| Ok(named(&with_second(parts), b"070702")),
        &[second_of("an archive with checksums (070702)", Each([PANICS, FOUND, FOUND, FOUND]), "070702")],
    ),
    case(
        Some("6.1"),
        |parts| Ok(bootconfig(&with_second(parts))),
        &[second_of("a boot configuration at the end", All(FOUND), "")],
    ),
    case(
        None,
        |parts| Ok(plain(&parts.members(&[Member::new("second", FILE, b"second")]))),
        &[second_of("an archive without TRAILER!!!", All(FOUND), "has no TRAILER!!!")],
    ),
    case(
        None,
        |parts| {
            let mut init = parts.probe.clone();
            init.resize(17 << 20, 0);
            Ok(parts.with_init(&init, &[]))
        },
        &[row("an /init of 17 MiB", &["init"], All("`init` is a file of 17825792 bytes"), "")],
    ),
    case(
        Some("6.1"),
        |parts| {
            let interpreter = Member::new("interpreter", 0o100_755, &elf::interpreter());
            let members = [interpreter, Member::new("probe", 0o100_755, &parts.probe)];
            Ok(parts.with_init(&elf::program(), &members))
        },
        &[row(
            "an /init whose interpreter is named behind byte 4096",
            &["init"],
            All("`init` is a file of 8205 bytes"),
            "",
        )],
    ),
    case(Some("7"), members, MEMBERS),
    case(Some("6.12"), names, NAMES),
    case(Some("5.10"), links, LINKS),
];

/// Hard links to names that meet what became of them, also in a segment behind one without `TRAILER!!!`.
fn links(parts: &Parts) -> Result<Vec<u8>> {
    let first = plain(&parts.members(&[
        Member::linked("none/f", FILE, 8, b""),
        Member::linked("g", FILE, 8, b"data"),
        Member::linked("h", FILE, 9, b"old"),
        Member::new("h", DIR, b""),
        Member::linked("i", FILE, 9, b"data"),
        Member::linked("j", FILE, 10, b"twice"),
        Member::linked("j", FILE, 10, b"twice"),
        Member::linked("k", FILE, 11, b"four"),
        Member::linked("m", FILE, 12, b"older"),
        Member::linked("n", FILE, 12, b"new"),
    ]));
    let mut image = Compress::Gzip.run(&first)?;
    image.resize(image.len().next_multiple_of(4), 0);
    Ok([image, Compress::Gzip.run(&archive(&[Member::linked("l", FILE, 11, b"")]))?].concat())
}

const LINKS: &[Row] = &[
    row(
        "a hard link to a name that was lost",
        &["g"],
        All("no `g`"),
        "\"g\" is lost: the first name of its inode was lost or replaced",
    ),
    row(
        "a hard link to a name that is a directory by now, and a hard link twice",
        &["i", "j"],
        All("no `i`, no `j`"),
        "3 members in total are hard links to names that were lost",
    ),
    row(
        "a hard link in the segment behind one without TRAILER!!!",
        &["k", "l"],
        All("`k` is a file of 4 bytes, `l` is a file of 4 bytes"),
        "",
    ),
    row(
        "two hard links with data",
        &["m", "n"],
        All("`m` is a file of 3 bytes, `n` is a file of 3 bytes"),
        "",
    ),
];

/// Members that meet what earlier members left.
fn members(parts: &Parts) -> Result<Vec<u8>> {
    let first = parts.base(&[
        Member::new(".", 0o040_700, b""),
        Member::new("early/f", FILE, b"x"),
        Member::new("early", DIR, b""),
        Member::new("full", DIR, b""),
        Member::new("full/f", FILE, b"x"),
        Member::new("full", FILE, b"new"),
        Member::new("full", LINK, b"init"),
        Member::new("empty", DIR, b""),
        Member::new("empty", FILE, b"new"),
        Member::new("file", FILE, b"old"),
        Member::new("file", DIR, b""),
        Member::new("file/f", FILE, b"x"),
        Member::new("usr", DIR, b""),
        Member::new("lib", LINK, b"usr"),
        Member::new("lib/below", FILE, b"x"),
        Member::new("lib", DIR, b""),
        Member::new("lib/f", FILE, b"x"),
        Member::new("n", 0o020_666, b""),
        Member::device("n", 1, 5),
        Member::linked("a", FILE, 8, b""),
        Member::linked("b", FILE, 8, b"older"),
        Member::linked("c", FILE, 9, b""),
        Member::linked("d", FILE, 9, b"older"),
        Member::new("p", 0o010_644, b"data"),
        Member::new("l", LINK, &[b'x'; 5000]),
    ]);
    let later = archive(&[
        Member::new("a", FILE, b"new"),
        Member::new("c", LINK, b"d"),
        Member::new("c", FILE, b"new"),
        Member::new("second", FILE, b"second"),
    ]);
    Ok([first, later].concat())
}

const MEMBERS: &[Row] = &[
    row("a root directory of mode 0700", &[""], All("`/` is a directory of mode 0700"), "has mode 0700"),
    row(
        "a member before its directory",
        &["early", "early/f"],
        All("`early` is a directory, no `early/f`"),
        "comes before its directory",
    ),
    row(
        "a file and a symbolic link over a directory with entries",
        &["full", "full/f"],
        All("`full` is a directory, `full/f` is a file of 1 bytes"),
        "is lost: a directory with entries has this name",
    ),
    row("a file over an empty directory", &["empty"], All("`empty` is a file of 3 bytes"), ""),
    row(
        "a directory over a file",
        &["file", "file/f"],
        All("`file` is a directory, `file/f` is a file of 1 bytes"),
        "",
    ),
    row(
        "a file below a symbolic link to a directory",
        &["usr/below"],
        All("`usr/below` is a file of 1 bytes"),
        "",
    ),
    row(
        "then a directory over that symbolic link",
        &["lib", "usr/f"],
        All("`lib` is a directory, no `usr/f`"),
        "replaces a symbolic link",
    ),
    row("a device over another one", &["n"], All("`n` is the device 0:0"), ""),
    row(
        "a file over one of two hard links",
        &["a", "b"],
        All("`a` is a file of 3 bytes, `b` is a file of 3 bytes"),
        "overwrites a file in place",
    ),
    row(
        "a symbolic link and then a file over one of two hard links",
        &["c", "d"],
        All("`c` is a file of 3 bytes, `d` is a file of 5 bytes"),
        "",
    ),
    row(
        "a pipe with data",
        &["p", "second"],
        All("no `p`, `second` is a file of 6 bytes"),
        "it has data but is not a regular file",
    ),
    row(
        "a link whose target has more than 4096 bytes",
        &["l"],
        All("no `l`"),
        "the kernel skips 2 members in total",
    ),
];

/// Names as other builders write them.
fn names(parts: &Parts) -> Result<Vec<u8>> {
    Ok(parts.base(&[
        Member::new("/a", FILE, b"x"),
        Member::new("./b", FILE, b"xx"),
        Member::new("./c/", DIR, b""),
        Member::new("c//d", FILE, b"xxx"),
    ]))
}

const NAMES: &[Row] = &[row(
    "names that begin with / or ./, or end with /",
    &["a", "b", "c", "c/d"],
    All("`a` is a file of 1 bytes, `b` is a file of 2 bytes, `c` is a directory, `c/d` is a file of 3 bytes"),
    "",
)];
