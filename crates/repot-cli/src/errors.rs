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

/// An exit code that is the result, with nothing to add: that of the program in a guest.
#[derive(Debug)]
pub struct Status(pub u8);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Status {}

/// A [`Usage`] error with this message.
pub(crate) fn usage(message: String) -> anyhow::Error {
    Usage(message).into()
}
