//! What a boot reported: a row for each thing that was tried, and facts about the machine.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// The message, if it failed.
    pub(super) failed: Option<String>,
}

impl Row {
    /// Reads `name: ok` or `name: FAIL message`. A name may contain a colon.
    fn parse(line: &str) -> Option<Row> {
        if let Some(name) = line.strip_suffix(": ok") {
            return Some(Row { name: name.to_owned(), failed: None });
        }
        let (name, message) = line.split_once(": FAIL")?;
        Some(Row { name: name.to_owned(), failed: Some(message.trim().to_owned()) })
    }
}

/// The result of a boot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) system: String,
    pub(super) mode: String,
    pub(super) kernel: String,
    pub(super) rows: Vec<Row>,
    /// Versions, and other facts by name.
    pub(super) facts: BTreeMap<String, String>,
    /// The whole boot, with all rows.
    pub(super) seconds: f64,
    /// What it was measured with.
    pub(super) key: String,
}

impl Outcome {
    /// Reads the lines that the guest wrote to its second serial port: `ROW name: ok`, `ROW name: FAIL
    /// message`, `FACT name: value` and, last, `END`. Returns the rows, the facts, and whether it got to the
    /// end.
    pub(super) fn parse(report: &str) -> (Vec<Row>, BTreeMap<String, String>, bool) {
        let (mut rows, mut facts, mut end) = (Vec::new(), BTreeMap::new(), false);
        for line in report.lines().map(str::trim_end) {
            if let Some(row) = line.strip_prefix("ROW ").and_then(Row::parse) {
                rows.push(row);
            } else if let Some((name, value)) =
                line.strip_prefix("FACT ").and_then(|line| line.split_once(": "))
            {
                // A system that starts again reports some twice.
                facts.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            } else if line == "END" {
                end = true;
            }
        }
        (rows, facts, end)
    }

    /// A line about it.
    pub(super) fn summary(&self) -> String {
        let failed = self.rows.iter().filter(|row| row.failed.is_some()).count();
        format!("{} rows work, {failed} fail, {:.0} s", self.rows.len() - failed, self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Row};

    #[test]
    fn rows_facts_and_the_end_are_read() {
        let report = "ROW runc: ok\r\nROW a: b: ok\nROW c: d: FAIL pivot_root .: invalid argument\r\nFACT up: 3.1\r\nEND\r\n";
        let (rows, facts, end) = Outcome::parse(report);
        let row = |name: &str, failed: Option<&str>| Row {
            name: name.to_owned(),
            failed: failed.map(str::to_owned),
        };
        let failed = row("c: d", Some("pivot_root .: invalid argument"));
        assert_eq!(rows, [row("runc", None), row("a: b", None), failed]);
        assert_eq!(facts["up"], "3.1");
        assert!(end);
        assert!(!Outcome::parse("ROW runc: ok\nEN").2);
    }
}
