//! Warnings about what an image cannot carry, gathered so that each kind is one line.

use std::collections::BTreeMap;

use crate::report::name::shown;

/// A kind of note.
pub(super) const EARLY: &str = "its time is before 1970, which an initramfs cannot hold: now 1970";
/// A kind of note.
pub(super) const LATE: &str = "its time is after 2106, which an initramfs cannot hold: now 2106";

/// What was left out or changed, and the names that it concerns.
#[derive(Debug, Default)]
pub struct Notes {
    /// By kind: the number of names, and the first.
    kinds: BTreeMap<String, (usize, Vec<u8>)>,
    lines: Vec<String>,
}

impl Notes {
    /// Adds a name to a kind.
    pub fn add(&mut self, kind: &str, name: &[u8]) {
        match self.kinds.get_mut(kind) {
            Some((count, _)) => *count += 1,
            None => drop(self.kinds.insert(kind.to_string(), (1, name.to_vec()))),
        }
    }

    /// Adds a warning, unless it was given before.
    pub fn once(&mut self, line: String) {
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    /// Takes over the notes of another part of the source.
    pub fn append(&mut self, other: Notes) {
        for (kind, (count, first)) in other.kinds {
            self.kinds.entry(kind).and_modify(|(sum, _)| *sum += count).or_insert((count, first));
        }
        other.lines.into_iter().for_each(|line| self.once(line));
    }

    /// The warnings.
    #[must_use]
    pub fn warnings(self) -> Vec<String> {
        let line = |(kind, (count, first)): (String, (usize, Vec<u8>))| {
            let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            format!("\"{}\"{more}: {kind}", shown(&first))
        };
        self.lines.into_iter().chain(self.kinds.into_iter().map(line)).collect()
    }
}
