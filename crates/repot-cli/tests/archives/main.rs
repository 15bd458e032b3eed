//! Tar archives of every dialect, made here byte by byte: what GNU tar and bsdtar read, `pack` reads alike.
//! `cargo xtask archives` compares with both on the archives of their own tests.

mod names;
#[path = "../support/raw_tar.rs"]
mod raw_tar;
mod records;
mod sparse;
mod whole;

use raw_tar::{Raw, archive};
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
