//! Two lists of a tree's entries, and every difference between them in words.

use repot_probe::account::{Entry, Kind};
use std::collections::BTreeMap;

/// What the list `was` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Was {
    /// A directory of the host that was packed: an archive has no attributes, and the kernel sets the
    /// access time to that of modification. Blocks and the size of directories are the host's business.
    Packed,
    /// The same packed as a payload: attributes too.
    Payload,
    /// The guest's own root before: nothing may differ.
    Before,
}

/// What the kernel executes, the console it opens before, and what the probe reads as `/init`.
const READ: [&str; 5] = ["init", "sbin/init", "repot", "dev/console", repot_probe::steps::FILE];

/// One line for each attribute of each entry that differs; the access time of what was `executed` may.
pub(crate) fn differences(was: &[Entry], what: Was, is: &[Entry], executed: &[&str]) -> Vec<String> {
    let read = |path: &str| READ.contains(&path) || executed.contains(&path);
    let mut found = Vec::new();
    let mut rest: BTreeMap<&str, &Entry> = is.iter().map(|entry| (entry.path.as_str(), entry)).collect();
    for entry in was {
        match rest.remove(entry.path.as_str()) {
            None => found.push(format!("/{}: is missing", entry.path)),
            Some(other) => found.extend(
                differing(entry, what, other, read(&entry.path))
                    .into_iter()
                    .map(|what| format!("/{}: {what}", entry.path)),
            ),
        }
    }
    found.extend(rest.keys().map(|path| format!("/{path}: was not there before")));
    found
}

fn differing(was: &Entry, what: Was, is: &Entry, read: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |name: &str, was: &dyn std::fmt::Debug, is: &dyn std::fmt::Debug| {
        found.push(format!("{name} was {was:?}, is {is:?}"));
    };
    macro_rules! same {
        ($($field:ident)*) => { $( if was.$field != is.$field { note(stringify!($field), &was.$field, &is.$field); } )* };
    }
    same!(kind mode uid gid link_to mtime target device content);
    let directory = was.kind == Kind::Directory;
    if !directory {
        same!(nlink size);
    }
    let packed = what != Was::Before;
    let atime = if packed { was.mtime } else { was.atime };
    if atime != is.atime && !read {
        note("atime", &atime, &is.atime);
    }
    let (xattrs, flags) =
        if what == Was::Packed { (BTreeMap::new(), 0) } else { (was.xattrs.clone(), was.flags) };
    if xattrs != is.xattrs {
        note("xattrs", &xattrs, &is.xattrs);
    }
    if flags != is.flags {
        note("flags", &flags, &is.flags);
    }
    // Fewer is fine: a page of zeros may become a hole. More is a hole that was filled.
    let blocks = if packed { was.size.div_ceil(4096) * 8 } else { was.blocks };
    if was.kind == Kind::File && is.blocks > blocks {
        note("blocks", &blocks, &is.blocks);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            link_to: None,
            size: 5000,
            blocks: 16,
            mtime: (7, 0),
            atime: (7, 0),
            target: None,
            device: None,
            xattrs: BTreeMap::new(),
            flags: 0,
            content: Some("c".to_owned()),
        }
    }

    #[test]
    fn equal_trees_have_no_differences() {
        assert_eq!(differences(&[file("a")], Was::Before, &[file("a")], &[]), Vec::<String>::new());
    }

    #[test]
    fn every_attribute_counts() {
        let changes: [fn(&mut Entry); 12] = [
            |entry| entry.kind = Kind::Fifo,
            |entry| entry.mode = 0o4644,
            |entry| entry.uid = 1,
            |entry| entry.gid = 1,
            |entry| entry.nlink = 2,
            |entry| entry.link_to = Some("b".to_owned()),
            |entry| entry.size = 5001,
            |entry| entry.blocks = 24,
            |entry| entry.mtime.1 = 1,
            |entry| entry.atime.1 = 1,
            |entry| entry.flags = 16,
            |entry| entry.content = None,
        ];
        for change in changes {
            let mut other = file("a");
            change(&mut other);
            assert_eq!(differences(&[file("a")], Was::Before, &[other.clone()], &[]).len(), 1, "{other:?}");
        }
    }

    #[test]
    fn missing_and_new_entries_are_named() {
        let found = differences(&[file("a")], Was::Before, &[file("b")], &[]);
        assert_eq!(found, ["/a: is missing", "/b: was not there before"]);
    }
}
