//! What differs between two snapshots, in words.
use std::fmt::Write;

use super::entry::{Entry, Kind};
use super::walk::Snapshot;

/// How access times are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Atime {
    /// To the nanosecond.
    Exact,
    /// Not at all.
    Ignored,
}

/// How holes are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holes {
    /// The same map of data and holes, and not more memory than before.
    Exact,
    /// Not more memory than before.
    NotMore,
    /// Not at all.
    Ignored,
}

/// What counts as a difference.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Access times.
    pub atime: Atime,
    /// Holes.
    pub holes: Holes,
    /// Entries something has to read in between: their access times do not count.
    pub read: &'static [&'static str],
}

impl Rules {
    /// Everything counts.
    pub const EXACT: Rules = Rules { atime: Atime::Exact, holes: Holes::Exact, read: &[] };
}

/// What differs between the tree `before` and the tree `after`: one line for each difference, nothing if none does.
#[must_use]
pub fn difference(before: &Snapshot, after: &Snapshot, rules: Rules) -> String {
    let mut said = String::new();
    for (path, old) in before {
        match after.get(path) {
            None => line(&mut said, path, format_args!("lost, was {:?}", old.kind)),
            Some(new) => compare(&mut said, path, old, new, rules),
        }
    }
    for (path, new) in after {
        if !before.contains_key(path) {
            line(&mut said, path, format_args!("appeared, a {:?}", new.kind));
        }
    }
    said
}

fn compare(said: &mut String, path: &[u8], old: &Entry, new: &Entry, rules: Rules) {
    macro_rules! same {
        ($field:ident, $format:literal) => {
            if old.$field != new.$field {
                let text = format!(
                    concat!(stringify!($field), " was ", $format, ", is ", $format),
                    old.$field, new.$field
                );
                line(said, path, format_args!("{text}"));
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
        line(said, path, format_args!("contents differ from {at} on: were {was:?}, are {is:?}"));
    }
    if rules.holes != Holes::Ignored && new.blocks > old.blocks {
        line(said, path, format_args!("took {} blocks, takes {}", old.blocks, new.blocks));
    }
    if rules.holes == Holes::Exact && was.data != is.data {
        line(said, path, format_args!("data was at {:?}, is at {:?}", was.data, is.data));
    }
}

fn line(said: &mut String, path: &[u8], what: std::fmt::Arguments<'_>) {
    let shown = path.escape_ascii().to_string();
    // Thousands of levels do not help the reader: the two ends do.
    let shown = if shown.len() > 400 {
        format!("{}…{}", &shown[..200], &shown[shown.len() - 200..])
    } else {
        shown
    };
    writeln!(said, "/{shown}: {what}").expect("a String takes all");
}
