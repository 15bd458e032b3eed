//! What a command says at its end: a table on standard output, warnings on standard error.

use std::io::{self, Write};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};

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

/// To standard output, where a pipe that nobody reads is an error and no panic.
pub fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// One line for each warning.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("repot: warning: {warning}");
    }
}

/// For JSON: as it is displayed.
pub fn as_text<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
