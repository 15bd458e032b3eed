//! Names of any bytes and any length in messages.

/// Longer names are cut in the middle: their beginning and end tell more than their length.
const SHOWN: usize = 96;

/// The name with odd bytes escaped, and not too long for a line.
#[must_use]
pub fn shown(name: &[u8]) -> String {
    if name.len() <= SHOWN {
        return name.escape_ascii().to_string();
    }
    let (start, end) = (&name[..SHOWN / 2], &name[name.len() - SHOWN / 2..]);
    format!("{}…{}", start.escape_ascii(), end.escape_ascii())
}
