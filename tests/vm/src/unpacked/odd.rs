//! An image with an entry of each kind, and with members that meet others, in three segments.

use anyhow::Result;
use repot_cli::codec::{Compression, Encoder};
use repot_cli::newc::{Header, Writer};
use std::io::Write;

/// So many of its members are not lost.
pub(super) const AT_LEAST: usize = 30;

/// A member, before anything else is set.
fn of(name: impl AsRef<[u8]>, mode: u32) -> Header {
    let name = name.as_ref().to_vec();
    Header { name, mode, nlink: 1, uid: 7, gid: 70_000, mtime: 1_000_000_000, ..Header::default() }
}

/// The image.
pub(super) fn image() -> Result<Vec<u8>> {
    let mut image = archive(&first())?;
    image.extend(compressed(&second(), Compression::Gzip)?);
    image.extend(compressed(&third(), Compression::Zstd)?);
    Ok(image)
}

const FILE: u32 = 0o100_644;
const DIR: u32 = 0o040_755;
const LINK: u32 = 0o120_777;

type Members = Vec<(Header, Vec<u8>)>;

/// Every kind, odd names and numbers.
fn first() -> Members {
    let device = |name: &str, mode, rdevmajor, rdevminor| Header { rdevmajor, rdevminor, ..of(name, mode) };
    let linked = |name: &str| Header { ino: 9, nlink: 3, ..of(name, FILE) };
    let long = vec![b'l'; 255];
    let mut all: Members = vec![
        (of(".", 0o040_751), vec![]),
        (of("dev", DIR), vec![]),
        (device("dev/console", 0o020_600, 5, 1), vec![]),
        (device("dev/large", 0o060_660, 4095, 1_048_575), vec![]),
        (device("dev/zero", 0o020_666, 0, 0), vec![]),
        (of("pipe", 0o010_622), vec![]),
        (of("socket", 0o140_755), vec![]),
        (of("special", 0o107_755), b"#!/bin/sh\n".to_vec()),
        (of("sticky", 0o043_777), vec![]),
        (Header { mtime: 0, uid: 0, gid: 0, ..of("sticky/epoch", FILE) }, b"0".to_vec()),
        (Header { mtime: u32::MAX, uid: u32::MAX - 1, ..of("sticky/late", FILE) }, b"1".to_vec()),
        (of("link", LINK), b"sticky/late".to_vec()),
        (of("dangling", LINK), vec![b'x'; 4095]),
        (of("new\nline", FILE), b"2".to_vec()),
        (of(b"not \xff UTF-8", FILE), b"3".to_vec()),
        (of(&long, FILE), b"4".to_vec()),
        (of("empty", FILE), vec![]),
        (of("zeros", FILE), vec![0; 10_000]),
        (linked("linked-1"), vec![]),
        (linked("linked-2"), vec![]),
        (linked("linked-3"), b"in the last one".to_vec()),
        (of("d", DIR), vec![]),
        (of("d/e", DIR), vec![]),
        (of("d/e/f", FILE), b"5".to_vec()),
        (of("./d/dotted", FILE), b"6".to_vec()),
        (of("/d/slashed", FILE), b"7".to_vec()),
    ];
    all.push((Header { nlink: 2, ino: 11, ..of("pair-1", FILE) }, b"old".to_vec()));
    all.push((Header { nlink: 2, ino: 11, ..of("pair-2", FILE) }, vec![]));
    all
}

/// Members that meet those of the first segment.
fn second() -> Members {
    vec![
        (Header { mtime: 5, uid: 1, gid: 2, ..of("d", 0o040_700) }, vec![]),
        (of("d/e", LINK), b"lost: a directory with entries stays".to_vec()),
        (of("empty", DIR), vec![]),
        (of("empty/now-a-directory", FILE), b"9".to_vec()),
        (of("sticky/epoch", LINK), b"now-a-link".to_vec()),
        (of("zeros", FILE), b"shorter".to_vec()),
        (of("pair-1", FILE), b"changes both".to_vec()),
        // The number of the first segment's hard links, but links do not reach into another segment.
        (Header { ino: 9, nlink: 2, ..of("alone", FILE) }, b"10".to_vec()),
    ]
}

/// A file through a symbolic link to a directory, and a directory in the place of a symbolic link.
fn third() -> Members {
    vec![
        (of("usr", DIR), vec![]),
        (of("usr/lib", DIR), vec![]),
        (of("lib", LINK), b"usr/lib".to_vec()),
        (of("lib/through", FILE), b"11".to_vec()),
        (of("link", DIR), vec![]),
        (of("link/inside", FILE), b"12".to_vec()),
        (Header { mtime: 77, ..of("usr", DIR) }, vec![]),
        (of("last", FILE), b"13".to_vec()),
    ]
}

fn archive(members: &Members) -> Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for (header, data) in members {
        writer.append(header, data)?;
    }
    Ok(writer.finish()?)
}

fn compressed(members: &Members, compression: Compression) -> Result<Vec<u8>> {
    let mut encoder = Encoder::new(Vec::new(), compression, compression.default_level())?;
    encoder.write_all(&archive(members)?)?;
    Ok(encoder.finish()?)
}
