//! `.repot-end`, the last member: an init that finds it whole knows that the kernel unpacked everything.
//!
//! `.repot-begin`, an empty file right behind `/init`, promises it: where that is and the end is not, the
//! archive was cut off.

use crate::newc::Totals;

/// The promise, in the root directory.
pub const BEGIN: &[u8] = b".repot-begin";

/// The marker's name, in the root directory.
pub const NAME: &[u8] = b".repot-end";

/// Its contents for an archive that holds `totals` without it.
#[must_use]
pub fn contents(totals: Totals) -> String {
    let Totals { entries, bytes, inodes } = totals;
    format!("format=1\nentries={entries}\nbytes={bytes}\ninodes={inodes}\n")
}

/// What a marker says, when it is whole.
#[must_use]
pub fn parse(text: &str) -> Option<Totals> {
    let number = |key: &str| {
        let value = text.split_inclusive('\n').find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value?.strip_suffix('\n')?.parse().ok()
    };
    (number("format")? == 1).then_some(())?;
    Some(Totals { entries: number("entries")?, bytes: number("bytes")?, inodes: number("inodes")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_marker_is_read() {
        let totals = Totals { entries: 12, inodes: 11, bytes: 123_456 };
        let text = contents(totals);
        assert_eq!(parse(&text), Some(totals));
        assert!((0..text.len()).all(|end| parse(&text[..end]).is_none()));
    }
}
