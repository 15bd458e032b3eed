//! File names in messages: any bytes, any length.

/// Longer names are shortened in the middle.
const SHOWN: usize = 96;

/// The name with unprintable bytes escaped, shortened to fit a line.
#[must_use]
pub fn shown(name: &[u8]) -> String {
    if name.len() <= SHOWN {
        return name.escape_ascii().to_string();
    }
    let (start, end) = (&name[..SHOWN / 2], &name[name.len() - SHOWN / 2..]);
    format!("{}…{}", start.escape_ascii(), end.escape_ascii())
}
