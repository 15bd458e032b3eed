//! docs/matrix.md and the table of the README, from what was measured.

use super::outcome::Outcome;
use super::system::{MODES, System, Turn};
use super::turn;
use anyhow::{Context, Result};
use repot_harness::command::read;
use repot_harness::{kernels, place};
use std::fmt::Write;
use std::process::Command;
use std::sync::Arc;

/// The table of the README is between these lines.
const MARKS: [&str; 2] = ["<!-- cargo xtask matrix -->", "<!-- end of matrix -->"];

/// The lines of the README: a label, and the system and the row that it shows.
const SHORT: [(&str, &str, &str); 10] = [
    ("runc", "containers", "runc"),
    ("crun", "containers", "crun"),
    ("podman as root", "containers", "podman"),
    ("podman as a user", "containers", "podman rootless"),
    ("docker", "containers", "docker"),
    ("containerd", "containers", "containerd"),
    ("bubblewrap", "containers", "bubblewrap"),
    ("systemd, no failed unit", "systemd", "failed units"),
    ("file capabilities as a user", "systemd", "file capabilities as a user"),
    ("id-mapped mounts", "systemd", "id-mapped mount"),
];

/// The kernel of the README's table.
const KERNEL: &str = "6.12";

const TITLE: &str = "\
# Real systems

`cargo xtask matrix` boots the systems below without repot (`plain`) and with it in each mode, and writes this page. The init
of each system starts a script from a read-only disk, which tries one thing a row. `works` and `fails` are what was
measured; a cell that was not measured with these programs says `not run`. The messages are below each table. The machine
is emulated, and its host may have had other work: take the seconds as an upper limit.
";

/// A column of a table: a mode, and the boot if there is one.
struct Column {
    mode: &'static str,
    turn: Option<Turn>,
    outcome: Option<Outcome>,
}

/// Writes both.
pub(super) fn write(systems: &[Arc<System>]) -> Result<()> {
    let mut text = format!("{TITLE}\n{}", versions()?);
    let mut short =
        format!("| on Linux {KERNEL} | {} |\n|---|{}\n", MODES.join(" | "), "---|".repeat(MODES.len()));
    for system in systems {
        text += &section(system, &columns(system)?)?;
    }
    for (label, system, row) in SHORT {
        let Some(system) = systems.iter().find(|other| other.name == system) else { continue };
        let columns = columns(system)?;
        let cells = MODES.map(|mode| {
            let turn = |column: &&Column| {
                column.mode == mode && column.turn.as_ref().is_some_and(|turn| turn.kernel == KERNEL)
            };
            cell(columns.iter().find(turn).and_then(|column| column.outcome.as_ref()), row).to_owned()
        });
        writeln!(short, "| {label} | {} |", cells.join(" | "))?;
    }
    std::fs::write(place::checkout().join("docs/matrix.md"), text)?;
    let readme = place::checkout().join("README.md");
    let old = std::fs::read_to_string(&readme)?;
    let marked =
        old.split_once(MARKS[0]).and_then(|(before, rest)| Some((before, rest.split_once(MARKS[1])?.1)));
    let (before, after) = marked.context("README.md has no place for the table")?;
    std::fs::write(readme, format!("{before}{}\n{short}{}{after}", MARKS[0], MARKS[1]))?;
    Ok(())
}

/// What the boots were made with.
fn versions() -> Result<String> {
    let qemu = read(Command::new("qemu-system-x86_64").arg("--version"))?;
    let mut text = format!("\n{}. Kernels:", qemu.lines().next().unwrap_or_default().trim());
    for series in kernels::series() {
        let package = kernels::kernel(series)?.image.with_file_name("package");
        write!(text, " {series} is {},", std::fs::read_to_string(package)?.trim())?;
    }
    Ok(format!("{}.\n", text.trim_end_matches(',')))
}

fn columns(system: &System) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    for mode in MODES {
        let turns: Vec<Turn> = system.turns().filter(|turn| turn.mode == mode).collect();
        if turns.is_empty() {
            columns.push(Column { mode, turn: None, outcome: None });
        }
        for turn in turns {
            let outcome = turn::known(system, &turn)?;
            columns.push(Column { mode, turn: Some(turn), outcome });
        }
    }
    Ok(columns)
}

fn section(system: &System, columns: &[Column]) -> Result<String> {
    let mut text = format!("\n## {}\n\n{}\n\n", system.name, system.about);
    if columns.iter().all(|column| column.outcome.is_none()) {
        return Ok(text + "Not run with these programs.\n");
    }
    text += "|  |";
    for column in columns {
        let kernel = column.turn.as_ref().map_or("", |turn| turn.kernel.as_str());
        write!(text, " {} |", format!("{} {kernel}", column.mode).trim())?;
    }
    writeln!(text, "\n|---|{}", "---|".repeat(columns.len()))?;
    let measured: Vec<&Outcome> = columns.iter().filter_map(|column| column.outcome.as_ref()).collect();
    let mut rows: Vec<&str> = Vec::new();
    for row in measured.iter().flat_map(|outcome| &outcome.rows) {
        if !rows.contains(&row.name.as_str()) {
            rows.push(&row.name);
        }
    }
    let mut line = |name: &str, cells: Vec<String>| writeln!(text, "| {name} | {} |", cells.join(" | "));
    let each = |cell: &dyn Fn(&Outcome) -> String| -> Vec<String> {
        columns.iter().map(|column| column.outcome.as_ref().map_or("not run".to_owned(), cell)).collect()
    };
    for row in rows {
        line(row, columns.iter().map(|column| cell(column.outcome.as_ref(), row).to_owned()).collect())?;
    }
    let fact =
        |name: &'static str| move |outcome: &Outcome| outcome.facts.get(name).cloned().unwrap_or_default();
    line("MiB in use at the first row", each(&fact("memory")))?;
    line("seconds of the whole boot", each(&|outcome| format!("{:.0}", outcome.seconds)))?;
    text += &notes(system, columns, &measured)?;
    Ok(text)
}

/// The messages of rows that fail, why a mode is not run, and the versions.
fn notes(system: &System, columns: &[Column], measured: &[&Outcome]) -> Result<String> {
    let mut text = String::from("\n");
    for outcome in measured {
        for row in &outcome.rows {
            if let Some(message) = &row.failed {
                writeln!(
                    text,
                    "* {} {}, {}: `{}`",
                    outcome.mode,
                    outcome.kernel,
                    row.name,
                    message.replace('`', "'")
                )?;
            }
        }
    }
    for column in columns.iter().filter(|column| column.turn.is_none()) {
        let why = system.not_run.get(column.mode).map_or("no boot is defined", String::as_str);
        writeln!(text, "* {} is not run: {why}", column.mode)?;
    }
    for outcome in measured {
        if let Some(log) = outcome.facts.get("repot") {
            writeln!(text, "* {} {} logs `{log}`", outcome.mode, outcome.kernel)?;
        }
    }
    let mut versions: Vec<String> = Vec::new();
    for (name, value) in measured.iter().flat_map(|outcome| &outcome.facts) {
        let version = name.strip_prefix("version ").map(|name| format!("{name} {value}"));
        versions.extend(version.filter(|version| !versions.contains(version)));
    }
    if !versions.is_empty() {
        writeln!(text, "\nVersions: {}.", versions.join(", "))?;
    }
    Ok(text)
}

/// What a row came to.
fn cell(outcome: Option<&Outcome>, row: &str) -> &'static str {
    let found = outcome.and_then(|outcome| outcome.rows.iter().find(|other| other.name == row));
    match found {
        Some(row) if row.failed.is_none() => "works",
        Some(_) => "**fails**",
        // The guest ended before it, or the row does not apply.
        None => "not run",
    }
}
