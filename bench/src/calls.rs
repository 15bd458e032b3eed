//! `cargo xtask bench calls`: how many system calls the move of an entry takes, counted by strace.

use super::contenders::Contender;
use super::run::{Terms, run};
use super::trees::Tree;
use super::{document, machine, text};
use anyhow::{Context, Result};
use repot_harness::{debian, place};
use std::fmt::Write;

/// Counts the calls of each contender on one tree, prints them and writes `docs/bench/calls.md`.
pub(crate) fn calls(tree: &Tree, contenders: &[Contender], terms: Terms<'_>, quick: bool) -> Result<()> {
    debian::need(&[("strace", "strace")])?;
    tree.prepare()?;
    let mut page = String::from("# System calls\n\n");
    let _ = writeln!(
        page,
        "Counted by `cargo xtask bench calls` with `strace -f -c`, from the execution of /init to the execution of the real init.\n{}\n",
        machine::about()?
    );
    for root in ["ramfs", "tmpfs"] {
        for contender in contenders {
            let counts = place::kept("bench")?.join("strace.txt");
            let tracer = [
                "strace",
                "-f",
                "-c",
                "-U",
                "calls,errors,name",
                "-o",
                &counts.display().to_string(),
                "-p",
                "{pid}",
            ]
            .map(str::to_owned);
            let outcome = run(contender, tree, Terms { root, tracer: &tracer, ..terms })?;
            let report = std::fs::read_to_string(&counts).context("strace left no counts")?;
            let section = section(contender, root, outcome.entries, &report);
            println!("{section}");
            page.push_str(&section);
        }
    }
    if quick { Ok(()) } else { document::write("calls.md", &page) }
}

fn section(contender: &Contender, root: &str, entries: u64, report: &str) -> String {
    let mut rows = Vec::new();
    let mut all = 0;
    for line in report.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(Ok(calls)), Some(name)) = (words.first().map(|word| word.parse::<u64>()), words.last())
        else {
            continue;
        };
        if *name == "total" {
            continue;
        }
        let errors = if words.len() == 3 { words[1] } else { "" };
        all += calls;
        rows.push((
            calls,
            vec![(*name).to_owned(), calls.to_string(), errors.to_owned(), each(calls, entries)],
        ));
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.0));
    let mut rows: Vec<Vec<String>> = rows.into_iter().filter(|row| row.0 >= 10).map(|row| row.1).collect();
    rows.push(vec!["all".into(), all.to_string(), String::new(), each(all, entries)]);
    format!(
        "## {}, from {root}, {entries} entries\n\n{}\n",
        contender.about,
        text::table(&["", "calls", "errors", "per entry"], &rows)
    )
}

fn each(calls: u64, entries: u64) -> String {
    let hundredths = calls * 100 / entries.max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
