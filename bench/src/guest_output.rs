//! The output of the guest program: lines that begin with `bench `. Other programs may write to the same
//! pipe.

use anyhow::{Context, Result};
use std::time::Duration;

/// The output of one run.
#[derive(Debug, Default)]
pub(crate) struct GuestOutput(String);

impl GuestOutput {
    pub(crate) fn new(text: &[u8]) -> GuestOutput {
        GuestOutput(String::from_utf8_lossy(text).into_owned())
    }

    /// What follows a keyword, in its last line.
    pub(crate) fn word(&self, word: &str) -> Option<&str> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix("bench "));
        lines.filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).next_back()
    }

    /// What follows a keyword, in each of its lines.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix("bench "));
        lines.filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '))
    }

    /// Seconds between start and end, by the clock and on a CPU.
    pub(crate) fn seconds(&self) -> Result<(f64, f64)> {
        let stamp = |word: &str| -> Result<(u64, u64)> {
            let text = self.word(word).with_context(|| format!("the output has no {word}"))?;
            let (clock, own) = text.split_once(' ').with_context(|| format!("{word} {text}"))?;
            Ok((clock.parse()?, own.parse()?))
        };
        let (start, end) = (stamp("start")?, stamp("end")?);
        let seconds = |from: u64, to: u64| Duration::from_nanos(to.saturating_sub(from)).as_secs_f64();
        Ok((seconds(start.0, end.0), seconds(start.1, end.1)))
    }
}
