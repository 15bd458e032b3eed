//! `repot diff`: compares two roots, each an initramfs, a directory, a tar archive or a container image.

mod compare;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use self::compare::Changed;
use crate::cli::Diff;
use crate::errors::Status;
use crate::report::{quiet, warn};
use crate::source::oci::Choice;
use crate::source::{self, Source};

/// The differences of two roots.
#[derive(Debug, Default, Serialize)]
struct Differences {
    a: String,
    b: String,
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<Changed>,
    warnings: Vec<String>,
}

/// Runs the command. The exit code is 1 if there is a difference.
pub fn run(args: &Diff) -> Result<()> {
    let scratch = std::env::temp_dir();
    let choice = Choice { image: None, architecture: args.arch.clone() };
    let read = |path: &Path| source::open(path, &choice, &scratch);
    let (mut a, mut b) = (read(&args.a)?, read(&args.b)?);
    let mut found = Differences {
        a: args.a.display().to_string(),
        b: args.b.display().to_string(),
        ..Differences::default()
    };
    for (source, name) in [(&mut a, &found.a), (&mut b, &found.b)] {
        found.warnings.extend(source.warnings.drain(..).map(|warning| format!("{name}: {warning}")));
    }
    fronts(&a, &b, &mut found)?;
    compare::trees(&a.tree, &b.tree, &args.ignore, &mut found)?;
    let same = found.added.is_empty() && found.removed.is_empty() && found.changed.is_empty();
    let text = if args.json { serde_json::to_string_pretty(&found)? + "\n" } else { found.text() };
    quiet(std::io::stdout().write_all(text.as_bytes()))?;
    if !args.json {
        warn(&found.warnings);
    }
    if same { Ok(()) } else { Err(Status(1).into()) }
}

/// Compares what stands in front of two images: microcode and the like.
fn fronts(a: &Source, b: &Source, found: &mut Differences) -> Result<()> {
    const NAME: &str = "(what is in front, such as microcode)";
    match (&a.front, &b.front) {
        (None, None) => {}
        (None, Some(_)) => found.added.push(NAME.into()),
        (Some(_), None) => found.removed.push(NAME.into()),
        (Some(one), Some(other)) => {
            if let Some(what) =
                compare::contents(one, other).context("cannot compare the start of the images")?
            {
                found.changed.push(Changed { name: NAME.into(), what: vec![what] });
            }
        }
    }
    Ok(())
}

impl Differences {
    fn text(&self) -> String {
        let mut lines: Vec<(&str, String)> = Vec::new();
        lines.extend(self.removed.iter().map(|name| (name.as_str(), format!("- {name}"))));
        lines.extend(self.added.iter().map(|name| (name.as_str(), format!("+ {name}"))));
        let changed = |changed: &Changed| format!("~ {}: {}", changed.name, changed.what.join(", "));
        lines.extend(self.changed.iter().map(|one| (one.name.as_str(), changed(one))));
        // The names of a directory follow it.
        lines.sort_by(|(one, _), (other, _)| one.split('/').cmp(other.split('/')));
        let mut text = String::new();
        for (_, line) in &lines {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        }
        let (added, removed, changed) = (self.added.len(), self.removed.len(), self.changed.len());
        let _ = match lines.len() {
            0 => writeln!(text, "no differences"),
            _ => writeln!(text, "{added} added, {removed} removed, {changed} changed"),
        };
        text
    }
}
