//! Reads lines `KEY=VALUE` in a fixed order.

use core::fmt;

use twox_hash::XxHash64;

use super::hexadecimal;

/// The XXH64 of `bytes` with seed 0, as `xxhsum -H1` prints it.
pub fn xxh64(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// Why an index was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The line number, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl core::error::Error for Flaw {}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index:{}: {}", self.line, self.what)
    }
}

/// The key of the last line.
const SUM: &[u8] = b"xxh64=";

/// The lines that are still to be read.
pub(super) struct Lines<'a> {
    pub(super) rest: &'a [u8],
    pub(super) number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn flaw<T>(&self, what: &'static str) -> Result<T, Flaw> {
        Err(Flaw { line: self.number, what })
    }

    /// Reads the next line, which must have this key, and returns its value.
    pub(super) fn value(&mut self, key: &str, what: &'static str) -> Result<&'a [u8], Flaw> {
        self.number += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let Some((line, rest)) = end.and_then(|end| self.rest.split_at_checked(end)) else {
            return self.flaw(what);
        };
        self.rest = &rest[1..];
        match line.strip_prefix(key.as_bytes()).and_then(|line| line.strip_prefix(b"=")) {
            Some(value) => Ok(value),
            None => self.flaw(what),
        }
    }

    /// Removes the last line, which must hold the XXH64 of everything before it.
    pub(super) fn end(&mut self, text: &[u8]) -> Result<(), Flaw> {
        let line = text.split_inclusive(|byte| *byte == b'\n').count();
        let corrupt = Flaw { line, what: "the index is corrupt or truncated" };
        let length = SUM.len() + 16 + 1;
        let (above, last) = text.split_at(text.len().saturating_sub(length));
        let sum = last
            .strip_prefix(SUM)
            .and_then(|last| hexadecimal(last.strip_suffix(b"\n")?))
            .map(u64::from_be_bytes);
        if sum != Some(xxh64(above)) {
            return Err(corrupt);
        }
        self.rest = &self.rest[..self.rest.len().saturating_sub(length)];
        Ok(())
    }

    pub(super) fn number(&mut self, key: &str, what: &'static str) -> Result<u64, Flaw> {
        let value = self.value(key, what)?;
        number(value).map_or_else(|| self.flaw(what), Ok)
    }
}

/// Parses a number in its only valid form: digits without leading zeros.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let canonical = text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || !text.starts_with(b"0"));
    if canonical { core::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// Parses `N` numbers with a blank between them.
pub(super) fn numbers<const N: usize>(text: &[u8]) -> Option<[u64; N]> {
    let mut words = text.split(|byte| *byte == b' ').map(number);
    let mut all = [0; N];
    for slot in &mut all {
        *slot = words.next()??;
    }
    words.next().is_none().then_some(all)
}
