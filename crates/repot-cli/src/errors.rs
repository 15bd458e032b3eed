//! The errors that change the exit code or the message of the program.

use std::fmt;

/// A mistake in the arguments: the program exits with 2 instead of 1.
#[derive(Debug)]
pub struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A failure that another process has already reported.
#[derive(Debug)]
pub struct Reported;

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Reported {}

/// A [`Usage`] error with this message.
pub(crate) fn usage(message: String) -> anyhow::Error {
    Usage(message).into()
}
