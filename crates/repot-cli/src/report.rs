//! What a command prints at its end: its summary on standard output, warnings on standard error.

pub mod mode;
pub mod name;
pub mod size;
pub mod time;

use std::fmt;
use std::io::{self, Read, Write};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::errors::Status;

/// What a command did or found: one type for people and for programs.
///
/// The fields are the keys of the JSON output.
pub trait Summary: Serialize {
    /// The summary for people, in whole lines.
    fn text(&self) -> String;

    /// Warnings, which are part of the JSON, and go to standard error with the text.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

/// How a command prints its summary.
#[derive(Debug, Clone, Copy, Default)]
pub struct Format {
    /// Print JSON, and no warnings beside it.
    pub json: bool,
    /// The image goes to standard output, so the summary goes to standard error.
    pub stdout_taken: bool,
}

/// Ends a command: prints its summary.
pub fn finish(format: Format, summary: &impl Summary) -> Result<()> {
    let text = if format.json { serde_json::to_string_pretty(summary)? + "\n" } else { summary.text() };
    if format.stdout_taken {
        let _ = io::stderr().write_all(text.as_bytes());
    } else {
        print(&text)?;
    }
    if !format.json {
        warn(summary.warnings());
    }
    Ok(())
}

/// A row of [`table`].
#[must_use]
pub fn row(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_string(), value.into())
}

/// A table of names and values.
#[must_use]
pub fn table(rows: &[(String, String)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in rows {
        table.add_row([name, value]);
    }
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 2));
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table.lines().map(|line| line.trim_end().to_string() + "\n").collect()
}

/// Writes to standard output. `println!` would panic when the reader of a pipe is gone.
pub fn print(text: &str) -> Result<()> {
    quiet(io::stdout().write_all(text.as_bytes()))
}

/// Copies to standard output.
pub(crate) fn pipe(from: &mut dyn Read) -> Result<()> {
    let (mut out, mut buffer) = (io::stdout(), vec![0; 256 << 10]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return quiet(out.flush()),
            Ok(got) => quiet(out.write_all(&buffer[..got]))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// An error on standard output. A reader that has gone, such as head(1), is none to report: the exit code is
/// that of a program which SIGPIPE has killed.
pub(crate) fn quiet<T>(written: io::Result<T>) -> Result<T> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Status(141).into()),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes one line to standard error for each warning.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        say!("warning: {warning}");
    }
}

/// Writes a line to standard error. `eprintln!` would panic when the reader of a pipe is gone.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "repot: {line}");
}

/// Serializes a value as the string that `Display` gives.
pub fn as_text<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
