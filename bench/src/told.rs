//! What the guest program says: lines that begin with `bench `, among whatever else came through the pipe.

use anyhow::{Context, Result};
use std::time::Duration;

/// What a run told.
#[derive(Debug, Default)]
pub(crate) struct Told(String);

impl Told {
    pub(crate) fn new(text: &[u8]) -> Told {
        Told(String::from_utf8_lossy(text).into_owned())
    }

    /// What follows a word, the last time it was said.
    pub(crate) fn word(&self, word: &str) -> Option<&str> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix("bench "));
        lines.filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).next_back()
    }

    /// Everything that followed a word.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix("bench "));
        lines.filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '))
    }

    /// Seconds between start and end, by the clock and on processors.
    pub(crate) fn seconds(&self) -> Result<(f64, f64)> {
        let stamp = |word: &str| -> Result<(u64, u64)> {
            let text = self.word(word).with_context(|| format!("nothing was said of its {word}"))?;
            let (clock, own) = text.split_once(' ').with_context(|| format!("{word} {text}"))?;
            Ok((clock.parse()?, own.parse()?))
        };
        let (start, end) = (stamp("start")?, stamp("end")?);
        let seconds = |from: u64, to: u64| Duration::from_nanos(to.saturating_sub(from)).as_secs_f64();
        Ok((seconds(start.0, end.0), seconds(start.1, end.1)))
    }
}
