//! What the kernel makes of odd images, and whether `repot inspect` knows: `cargo xtask formats`.
//!
//! What `inspect` says about segments, headers, and members that meet others, has a boot here. A few of the
//! boots are tests.

mod cases;
mod damaged;
mod elf;
mod image;

use crate::{Boot, LIMIT, programs, with_second_try};
use anyhow::{Context, Result, ensure};
use cases::{Case, Row};
use image::Parts;
use repot_harness::kernels::{self, Kernel};
use repot_harness::qemu::{Machine, Run};
use repot_harness::tool::Tool;
use repot_harness::{debian, place};
use repot_probe::account::Line;
use repot_snapshot::{Kind, Snapshot};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The kernels of the table, in the order of the expectations.
const SERIES: [&str; 4] = ["5.10", "6.1", "6.12", "7"];

/// Programs that compress what the tool does not write.
const TOOLS: [debian::Tool; 2] = [("xz", "xz-utils"), ("lz4", "lz4")];

/// Every image with its number.
fn all() -> impl Iterator<Item = (usize, &'static Case)> {
    cases::CASES.iter().chain(damaged::CASES).enumerate()
}

/// The boots that are tests.
pub(crate) fn boots() -> Vec<Boot> {
    let boot = |(number, case): (usize, &'static Case)| {
        let series = case.sample?;
        let run = Box::new(move || {
            debian::need(&[&[debian::QEMU], &TOOLS[..]].concat())?;
            let built = Built::new(number, case)?;
            let kernel = SERIES.iter().position(|name| *name == series).context("an unknown kernel")?;
            let run = built.boot(series)?;
            let wrong: Vec<String> =
                case.rows.iter().filter_map(|row| row.wrong(kernel, &row.found(&run), &built.said)).collect();
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            Ok(())
        });
        let name = case.rows.first()?.name.replace([' ', ',', '/'], "-");
        Some(Boot { name: format!("formats/{series}-{name}"), long: false, run })
    };
    all().filter_map(boot).collect()
}

/// Boots every image on every kernel and writes docs/kernel-formats.md. With a filter, boots the images with
/// a row whose name contains it, and writes nothing.
///
/// # Errors
/// If something cannot be built, or a result is not the expected one.
pub fn formats(filter: &str) -> Result<()> {
    debian::need(&[&[debian::QEMU], &TOOLS[..]].concat())?;
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    let wanted = |case: &Case| case.rows.iter().any(|row| row.name.contains(filter));
    for (number, case) in all().filter(|(_, case)| wanted(case)) {
        let built = Built::new(number, case)?;
        let runs = SERIES.iter().map(|series| built.boot(series)).collect::<Result<Vec<_>>>()?;
        for row in case.rows {
            let cells: Vec<String> = runs.iter().map(|run| row.found(run)).collect();
            println!("{}: {}", row.name, cells.join(" | "));
            wrong.extend(cells.iter().enumerate().filter_map(|(at, cell)| row.wrong(at, cell, &built.said)));
            lines.push((row.name, cells, row.said(&built.said)));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    if filter.is_empty() {
        let path = place::checkout().join("docs/kernel-formats.md");
        std::fs::write(&path, page(&lines)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

impl Row {
    /// What the kernel made of it.
    fn found(&self, run: &Run) -> String {
        match run.report.lines().next_back().map(serde_json::from_str) {
            Some(Ok(Line::After(account))) => {
                let found: Vec<String> = self.paths.iter().map(|path| entry(&account.tree, path)).collect();
                found.join(", ")
            }
            _ if run.console.contains("Kernel panic") => {
                let message = "Initramfs unpacking failed: ";
                let why = run.console.lines().find_map(|line| Some(line.split_once(message)?.1.trim()));
                why.map_or("panics".to_owned(), |why| format!("panics: {why}"))
            }
            _ => format!("nothing: {}", crate::last_lines(&run.console)),
        }
    }

    /// Why the result on a kernel, or what `inspect` says, is not as expected.
    fn wrong(&self, kernel: usize, found: &str, said: &[String]) -> Option<String> {
        let (name, expected, series) = (self.name, self.expect.on(kernel), SERIES[kernel]);
        // The kernel's own message follows the word.
        let same = if expected == "panics" { found.starts_with(expected) } else { found == expected };
        if !same {
            return Some(format!("{name}, {series}: {found}; expected: {expected}"));
        }
        let missing = !self.inspect.is_empty() && self.said(said).is_empty();
        missing.then(|| format!("{name}: inspect does not say {:?}, but {said:?}", self.inspect))
    }

    /// What `inspect` says about it.
    fn said(&self, said: &[String]) -> String {
        let about = said.iter().find(|line| !self.inspect.is_empty() && line.contains(self.inspect));
        about.cloned().unwrap_or_default()
    }
}

/// An image in a file.
struct Built {
    number: usize,
    path: PathBuf,
    /// What `repot inspect` says about it.
    said: Vec<String>,
}

impl Built {
    fn new(number: usize, case: &'static Case) -> Result<Built> {
        let parts = Parts { probe: std::fs::read(programs::probe()?)? };
        let path = place::kept("boots/formats")?.join(format!("{number}.img"));
        let image = (case.image)(&parts).with_context(|| format!("cannot build image {number}"))?;
        std::fs::write(&path, image).with_context(|| format!("cannot write {}", path.display()))?;
        let tool = Tool::at(programs::tool()?.to_owned());
        let output = tool.output(Path::new("."), &["inspect".as_ref(), path.as_os_str()])?;
        let lines =
            output.lines().filter_map(|line| line.strip_prefix("problem: ").or(line.strip_prefix("repot: ")));
        let said: Vec<String> =
            lines.map(|line| line.replace(&format!("{}: ", path.display()), "")).collect();
        let quiet = case.rows.iter().all(|row| row.inspect.is_empty());
        ensure!(!quiet || said.is_empty(), "inspect says {said:?} about: {}", case.rows[0].name);
        Ok(Built { number, path, said })
    }

    fn boot(&self, series: &str) -> Result<Run> {
        let kernel: Kernel = kernels::kernel(series)?;
        let folder = place::fresh(&format!("boots/runs/formats-{}-{series}", self.number))?;
        let machine = Machine {
            kernel: &kernel,
            initrd: &self.path,
            append: "",
            memory_mib: 256,
            cpus: 1,
            limit: LIMIT,
            stays: None,
            memory: None,
            folder: &folder,
        };
        with_second_try(|| machine.run())
    }
}

fn entry(tree: &Snapshot, path: &str) -> String {
    let name = if path.is_empty() { "/" } else { path };
    let Some(entry) = tree.get(path.as_bytes()) else { return format!("no `{name}`") };
    match entry.kind {
        Kind::File => format!("`{name}` is a file of {} bytes", entry.size),
        Kind::Dir if path.is_empty() => format!("`{name}` is a directory of mode {:04o}", entry.mode),
        Kind::Dir => format!("`{name}` is a directory"),
        Kind::Symlink => format!("`{name}` is a link"),
        Kind::Char | Kind::Block => format!("`{name}` is the device {}:{}", entry.rdev.0, entry.rdev.1),
        Kind::Fifo | Kind::Socket => format!("`{name}` is special"),
    }
}

fn page(rows: &[(&str, Vec<String>, String)]) -> Result<String> {
    let mut packages = Vec::new();
    for series in SERIES {
        let package = kernels::kernel(series)?.image.with_file_name("package");
        packages.push(std::fs::read_to_string(package)?.trim().to_owned());
    }
    let mut text = format!(
        "# What the kernel makes of odd images\n\n`cargo xtask formats` builds these images, boots each on every \
         kernel, and writes this page. The command fails if a kernel, or `repot inspect`, is not as the page says. \
         Some of the boots are tests too (`cargo xtask boots formats/`).\n\n\
         The kernels: {}.\n\n| image | {} | `repot inspect` |\n|---|---|---|---|---|---|\n",
        packages.join(", "),
        SERIES.join(" | ")
    );
    for (name, cells, said) in rows {
        let (cells, said) = (cells.join(" | "), said.replace('|', "\\|"));
        writeln!(text, "| {name} | {cells} | {said} |")?;
    }
    Ok(text)
}
