//! Formats bytes, paths and sizes for messages.

use core::fmt;

/// Bytes in double quotes. Everything except printable ASCII is escaped as `\xNN`.
#[derive(Debug)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Bytes in lowercase hexadecimal.
#[derive(Debug)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A size with one decimal, in the largest unit in which it is at least 1.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bytes(bytes) = *self;
        let tenth = |unit: u64| (bytes / unit, bytes % unit * 10 / unit);
        let ((integer, tenths), name) = match bytes {
            0..0x400 => return write!(f, "{bytes} B"),
            0x400..0x10_0000 => (tenth(1 << 10), "KiB"),
            0x10_0000..0x4000_0000 => (tenth(1 << 20), "MiB"),
            _ => (tenth(1 << 30), "GiB"),
        };
        write!(f, "{integer}.{tenths} {name}")
    }
}
