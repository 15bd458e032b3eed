//! Rounds. Every contender runs once in each round, so that other load of the machine affects all of them.

use super::contenders::{Contender, Way};
use super::memory::Memory;
use super::run::{Outcome, Terms, run};
use super::text;
use super::trees::Tree;
use anyhow::Result;
use indicatif::ProgressBar;

/// The results of one contender on one tree.
#[derive(Debug, Clone)]
pub(crate) struct Score {
    pub(crate) contender: Contender,
    /// Seconds, sorted.
    pub(crate) seconds: Vec<f64>,
    /// CPU seconds of all threads together, sorted.
    pub(crate) own: Vec<f64>,
    /// Why a run was not a complete move.
    pub(crate) flaw: Option<String>,
    /// From separate runs after the timed ones.
    pub(crate) memory: Option<Memory>,
    /// What repot's own log line reports.
    pub(crate) claim: Option<String>,
}

/// All contenders on one tree.
#[derive(Debug, Clone)]
pub(crate) struct Race {
    pub(crate) tree: Tree,
    pub(crate) root: String,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) scores: Vec<Score>,
}

/// Runs all contenders `rounds` times, and then each of them `looks` times to measure the memory.
pub(crate) fn race(
    tree: &Tree,
    contenders: &[Contender],
    rounds: usize,
    looks: usize,
    terms: Terms<'_>,
    bar: &ProgressBar,
) -> Result<Race> {
    tree.prepare()?;
    let score = |contender: &Contender| Score {
        contender: contender.clone(),
        seconds: Vec::new(),
        own: Vec::new(),
        flaw: None,
        memory: None,
        claim: None,
    };
    let mut race = Race {
        tree: tree.clone(),
        root: terms.root.to_owned(),
        entries: 0,
        bytes: 0,
        scores: contenders.iter().map(score).collect(),
    };
    for round in 0..rounds {
        for at in 0..race.scores.len() {
            // The order alternates: what one contender leaves behind could help or slow down the next.
            let count = race.scores.len();
            let at = if round % 2 == 0 { at } else { count - 1 - at };
            let outcome = race.one(at, terms, bar)?;
            race.scores[at].seconds.push(outcome.seconds);
            race.scores[at].own.push(outcome.own);
        }
    }
    for at in 0..race.scores.len() {
        // A floor reads the tree into its own memory first, so its memory says nothing.
        if !race.scores[at].contender.is_floor() {
            let mut seen = Vec::new();
            for _ in 0..looks {
                let outcome = race.one(at, Terms { sample: true, ..terms }, bar)?;
                seen.extend(outcome.memory);
                race.scores[at].claim = claim(&outcome.log);
            }
            race.scores[at].memory = Memory::median(&seen);
        }
    }
    for score in &mut race.scores {
        score.seconds.sort_by(f64::total_cmp);
        score.own.sort_by(f64::total_cmp);
    }
    Ok(race)
}

impl Race {
    fn one(&mut self, at: usize, terms: Terms<'_>, bar: &ProgressBar) -> Result<Outcome> {
        let contender = self.scores[at].contender.clone();
        bar.set_message(format!("{}: {}", self.tree.name, contender.name));
        let mut outcome = run(&contender, &self.tree, terms)?;
        bar.inc(1);
        (self.entries, self.bytes) = (outcome.entries, outcome.bytes);
        self.scores[at].flaw = outcome.flaw.take().or(self.scores[at].flaw.take());
        Ok(outcome)
    }

    /// The score of a contender by its name.
    pub(crate) fn of(&self, name: &str) -> Option<&Score> {
        self.scores.iter().find(|score| score.contender.name == name)
    }
}

/// The number of runs of a race.
pub(crate) fn runs(contenders: &[Contender], rounds: usize, looks: usize) -> usize {
    let floors = contenders.iter().filter(|one| one.is_floor()).count();
    contenders.len() * rounds + (contenders.len() - floors) * looks
}

impl Contender {
    fn is_floor(&self) -> bool {
        matches!(self.way, Way::Guest { word: "floor", .. })
    }
}

impl Score {
    pub(crate) fn least(&self) -> f64 {
        self.seconds.first().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        text::median(&self.seconds)
    }

    /// The median of the CPU seconds.
    pub(crate) fn own(&self) -> f64 {
        text::median(&self.own)
    }
}

/// "1.2 MiB", from `…, 1.2 MiB extra at the peak, …`.
fn claim(log: &str) -> Option<String> {
    let (before, _) = log.split_once(" extra at the peak")?;
    before.rsplit(", ").next().map(str::to_owned)
}
