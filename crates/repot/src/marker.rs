//! The end marker of an archive: `.repot-end`, its last member. docs/tool/format.md describes it.
//!
//! An init that finds it complete knows that the kernel unpacked the whole archive. `.repot-begin`, an empty
//! file behind `/init`, promises it: if that exists and the end marker does not, the archive is truncated.
//!
//! The marker is the proof, not the numbers in it: segments behind the archive may replace files by smaller
//! ones, and an earlier stage may delete some. Whoever has the archive itself can compare the numbers too.

use core::fmt;

use crate::site::number;

/// The name of the promise, in the root directory.
pub const BEGIN: &str = ".repot-begin";
/// The name of the end marker, in the root directory.
pub const END: &str = ".repot-end";

/// What is missing in an unpacked root: `begun` says whether it has the promise, `end` is the end marker if
/// that is complete. `None` if nothing is known to be missing.
pub fn missing(begun: bool, end: Option<&Totals>) -> Option<&'static str> {
    (begun && end.is_none()).then_some("the archive has no end marker")
}

/// The contents of an end marker: what its archive holds without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Members, `.` and every hard link included, `TRAILER!!!` excluded.
    pub entries: u64,
    /// Bytes of data of regular files. Each inode counts once.
    pub bytes: u64,
    /// Distinct inodes.
    pub inodes: u64,
}

/// Writes the end marker.
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { entries, bytes, inodes } = self;
        write!(f, "format=1\nentries={entries}\nbytes={bytes}\ninodes={inodes}\n")
    }
}

impl Totals {
    /// Parses an end marker. `None` if it is truncated or of an unknown format.
    pub fn parse(text: &[u8]) -> Option<Totals> {
        // A line without its line feed is truncated.
        let whole = &text[..text.iter().rposition(|byte| *byte == b'\n')?];
        let number = |key| number(whole, key);
        if number(b"format=")? != 1 {
            return None;
        }
        Some(Totals { entries: number(b"entries=")?, bytes: number(b"bytes=")?, inodes: number(b"inodes=")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_alone_proves_that_the_archive_is_whole() {
        let larger_than_any_root = Totals { entries: u64::MAX, inodes: u64::MAX, bytes: u64::MAX };
        for (begun, end, whole) in [
            (false, None, true),
            (true, None, false),
            (true, Some(&larger_than_any_root), true),
            (false, Some(&larger_than_any_root), true),
        ] {
            assert_eq!(missing(begun, end).is_none(), whole);
        }
    }

    #[test]
    fn only_a_whole_marker_is_read() {
        let totals = Totals { entries: 12, inodes: 11, bytes: 123_456 };
        let text = alloc::format!("{totals}");
        assert_eq!(Totals::parse(text.as_bytes()), Some(totals));
        assert!((0..text.len()).all(|end| Totals::parse(&text.as_bytes()[..end]).is_none()));
        assert_eq!(
            Totals::parse(b"later=keys\ninodes=11\nbytes=123456\nentries=12\nformat=1\n"),
            Some(totals)
        );
    }

    #[test]
    fn a_marker_that_was_cut_off_is_none() {
        let whole = b"format=1\nentries=12\nbytes=3456\ninodes=11\n";
        assert_eq!(Totals::parse(whole), Some(Totals { entries: 12, bytes: 3456, inodes: 11 }));
        assert_eq!(Totals::parse(b""), None);
        assert_eq!(Totals::parse(b"entries=12\n"), None);
        assert_eq!(Totals::parse(b"format=1"), None);
        assert_eq!(Totals::parse(b"format=one\n"), None);
        assert_eq!(Totals::parse(b"format=1\nentries=99999999999999999999\n"), None);
    }
}
