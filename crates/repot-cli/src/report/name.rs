//! File names in messages: any bytes, any length.

use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;

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

/// Writes a name as it is. On a terminal, bytes that it would act upon are escaped.
pub(crate) fn printed(out: &mut impl Write, name: &[u8]) -> io::Result<()> {
    static TERMINAL: LazyLock<bool> = LazyLock::new(|| io::stdout().is_terminal());
    if *TERMINAL && name.iter().any(|byte| byte.is_ascii_control()) {
        return write!(out, "{}", name.escape_ascii());
    }
    out.write_all(name)
}

/// The bytes of a name that is not UTF-8.
pub(crate) fn hexadecimal(name: &[u8]) -> Option<String> {
    let digits = || name.iter().map(|byte| format!("{byte:02x}")).collect();
    std::str::from_utf8(name).is_err().then(digits)
}
