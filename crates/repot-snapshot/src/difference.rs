//! What differs between two snapshots, in words.

use crate::entry::{Entry, Kind};
use crate::text::escape;
use crate::walk::Snapshot;
use std::fmt::Write;

/// How access times are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Atime {
    /// Equal to the nanosecond.
    Exact,
    /// Not compared.
    Ignored,
}

/// How holes are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holes {
    /// The same holes, and no more space than before.
    Exact,
    /// No more space than before. A page of zeros may become a hole, but a hole must not be filled.
    NotMore,
    /// Not compared.
    Ignored,
}

/// What counts as a difference.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Access times.
    pub atime: Atime,
    /// Holes.
    pub holes: Holes,
    /// Paths that something reads between the snapshots, so that their access times may differ.
    pub read: &'a [&'a str],
    /// Paths that may be missing in the second snapshot.
    pub gone: &'a [&'a str],
}

impl Rules<'static> {
    /// Compares everything.
    pub const EXACT: Rules<'static> =
        Rules { atime: Atime::Exact, holes: Holes::Exact, read: &[], gone: &[] };
}

/// What differs between the tree `before` and the tree `after`, one line for each difference. Empty if they
/// are equal.
#[must_use]
pub fn difference(before: &Snapshot, after: &Snapshot, rules: Rules<'_>) -> String {
    let mut lines = String::new();
    for (path, old) in before {
        match after.get(path) {
            None if rules.gone.iter().any(|gone| gone.as_bytes() == path) => {}
            None => line(&mut lines, path, format_args!("missing, was a {:?}", old.kind)),
            Some(new) => compare(&mut lines, path, old, new, rules),
        }
    }
    for (path, new) in after {
        if !before.contains_key(path) {
            line(&mut lines, path, format_args!("new, a {:?}", new.kind));
        }
    }
    lines
}

fn compare(lines: &mut String, path: &[u8], old: &Entry, new: &Entry, rules: Rules<'_>) {
    macro_rules! same {
        ($field:ident, $format:literal) => {
            if old.$field != new.$field {
                let text = format!(
                    concat!(stringify!($field), " was ", $format, ", is ", $format),
                    old.$field, new.$field
                );
                line(lines, path, format_args!("{text}"));
            }
        };
    }
    same!(kind, "{:?}");
    same!(mode, "{:04o}");
    same!(uid, "{}");
    same!(gid, "{}");
    same!(size, "{}");
    same!(rdev, "{:?}");
    same!(target, "{:?}");
    same!(mtime, "{:?}");
    same!(xattrs, "{:?}");
    same!(flags, "{:#x}");
    same!(nlink, "{}");
    same!(linked, "{:?}");
    let read = rules.read.iter().any(|read| read.as_bytes() == path);
    if rules.atime == Atime::Exact && !read {
        same!(atime, "{:?}");
    }
    if old.kind != Kind::File || new.kind != Kind::File {
        return;
    }
    let (Some(was), Some(is)) = (&old.content, &new.content) else { return };
    if let Some(at) = was.differs_at(is) {
        line(lines, path, format_args!("contents differ from byte {at} on: {was:?} before, {is:?} after"));
    }
    if rules.holes != Holes::Ignored && new.blocks > old.blocks {
        line(lines, path, format_args!("took {} blocks, takes {}", old.blocks, new.blocks));
    }
    if rules.holes == Holes::Exact && was.data != is.data {
        line(lines, path, format_args!("data was at {:?}, is at {:?}", was.data, is.data));
    }
}

fn line(lines: &mut String, path: &[u8], what: std::fmt::Arguments<'_>) {
    let shown = escape(path);
    // Of a path with thousands of levels, the two ends are enough.
    let shown = if shown.len() > 400 {
        format!("{}…{}", &shown[..200], &shown[shown.len() - 200..])
    } else {
        shown
    };
    let _ = writeln!(lines, "/{shown}: {what}");
}

#[cfg(test)]
mod tests {
    use super::{Rules, difference};
    use crate::content::Content;
    use crate::entry::{Entry, Kind};
    use crate::walk::Snapshot;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn file() -> Entry {
        let content = Content::of(std::fs::File::open("/dev/null").expect("/dev/null"), 0).expect("empty");
        Entry {
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 5000,
            rdev: (0, 0),
            target: Vec::new(),
            content: Some(Arc::new(content)),
            atime: (7, 0),
            mtime: (7, 0),
            xattrs: BTreeMap::new(),
            flags: 0,
            nlink: 1,
            linked: None,
            blocks: 16,
        }
    }

    fn tree(path: &str, entry: Entry) -> Snapshot {
        Snapshot::from([(path.into(), entry)])
    }

    #[test]
    fn equal_trees_have_no_differences() {
        assert_eq!(difference(&tree("a", file()), &tree("a", file()), Rules::EXACT), "");
    }

    #[test]
    fn every_attribute_counts() {
        let changes: [fn(&mut Entry); 15] = [
            |entry| entry.kind = Kind::Fifo,
            |entry| entry.mode = 0o4644,
            |entry| entry.uid = 1,
            |entry| entry.gid = 1,
            |entry| entry.size = 5001,
            |entry| entry.rdev = (1, 3),
            |entry| entry.target = b"t".to_vec(),
            |entry| entry.atime.1 = 1,
            |entry| entry.mtime.1 = 1,
            |entry| drop(entry.xattrs.insert(b"user.x".to_vec(), b"y".to_vec())),
            |entry| entry.flags = 16,
            |entry| entry.nlink = 2,
            |entry| entry.linked = Some(b"b".to_vec()),
            |entry| entry.blocks = 24,
            |entry| Arc::make_mut(entry.content.as_mut().expect("a file")).digest = vec![1],
        ];
        for change in changes {
            let mut other = file();
            change(&mut other);
            let found = difference(&tree("a", file()), &tree("a", other.clone()), Rules::EXACT);
            assert_eq!(found.lines().count(), 1, "{other:?}: {found}");
        }
    }

    #[test]
    fn missing_and_new_entries_are_named() {
        let found = difference(&tree("a", file()), &tree("b", file()), Rules::EXACT);
        assert_eq!(found, "/a: missing, was a File\n/b: new, a File\n");
    }

    #[test]
    fn json_keeps_everything_that_is_compared() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Document(#[serde(with = "crate::json")] Snapshot);
        let mut entry = file();
        entry.linked = Some(b"\xff\\".to_vec());
        entry.target = b"x\n".to_vec();
        entry.xattrs.insert(b"user.\xff".to_vec(), vec![0, 255]);
        let before = tree("odd\n\\name", entry);
        let text = serde_json::to_string(&Document(before.clone())).expect("JSON");
        let Document(after) = serde_json::from_str(&text).expect("JSON");
        assert_eq!(difference(&before, &after, Rules::EXACT), "");
    }
}
