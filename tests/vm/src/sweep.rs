//! The same boot with less and less memory. Each boot must end with the whole tree or with a message that
//! says what is missing. Writes a table of the results.

use crate::image::Image;
use crate::scenario::Scenario;
use crate::{LIMIT, differences, last_lines, programs};
use anyhow::{Context, Result, ensure};
use repot_harness::arch::Arch;
use repot_harness::kernels::{self, Kernel};
use repot_harness::qemu::{Machine, Run};
use repot_harness::{command, debian, place};
use repot_probe::account::{Account, Line};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The step of the search, in MiB.
const STEP: u32 = 8;
/// After this many steps at which `/init` did not start, no smaller size is tried.
const BELOW: u32 = 2;

/// The trees, and for each the memory in MiB to begin with.
const TREES: [(&str, &str, u32); 2] =
    [("small", "tree = 'small'", 128), ("one large file", "tree = 'heavy'\ncompress = 'zstd'", 192)];

/// The result of one boot.
enum Outcome {
    /// The real init found everything. With repot's log line.
    Whole(String),
    /// No init was executed. With repot's line that says why.
    Refused(String),
    /// The kernel did not start `/init`. With its last line.
    Kernel(String),
    /// A result that is not allowed.
    Wrong(String),
}

/// One column of the table: a tree on a kernel and a type of root.
struct Column<'a> {
    kernel: &'a Kernel,
    rootfstype: &'static str,
    tree: &'static str,
    image: &'a Image,
    plenty: u32,
}

/// Boots both trees on each kernel and both types of root, and writes docs/memory-sweep.md if every result is
/// allowed.
///
/// # Errors
/// If something cannot be built, or if a boot had a result that is not allowed.
pub fn sweep(series: &[String], jobs: usize) -> Result<()> {
    debian::need(&[debian::QEMU])?;
    debian::need_root("making the images")?;
    let kernels: Vec<_> = series.iter().map(|name| kernels::kernel(name)).collect::<Result<_>>()?;
    let (init, probe) = (programs::init()?, programs::probe()?);
    let mut images = Vec::new();
    for (name, what, plenty) in TREES {
        let mut scenario: Scenario = toml::from_str(&format!("about = ''\n{what}\n[expect]"))?;
        scenario.name = format!("sweep-{}", name.replace(' ', "-"));
        images.push((name, Image::build(&scenario, Arch::X86_64, init, probe)?, plenty));
    }
    let mut columns = Vec::new();
    for kernel in &kernels {
        for rootfstype in ["ramfs", "tmpfs"] {
            for (tree, image, plenty) in &images {
                columns.push(Column { kernel, rootfstype, tree, image, plenty: *plenty });
            }
        }
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(column) = columns.get(number) else { break };
                    let outcomes = downward(column);
                    if let Ok(mut results) = results.lock() {
                        results.insert(number, outcomes);
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_default().into_values().collect::<Result<Vec<_>>>()?;
    let wrong =
        results.iter().flat_map(BTreeMap::values).filter(|it| matches!(it, Outcome::Wrong(_))).count();
    ensure!(wrong == 0, "{wrong} boots had a result that is not allowed");
    write(&columns, &results)
}

/// All sizes of a column, from much memory downward.
fn downward(column: &Column) -> Result<BTreeMap<u32, Outcome>> {
    let mut outcomes = BTreeMap::new();
    let (mut memory, mut below) = (column.plenty, 0);
    let boot = |memory| -> Result<Outcome> {
        let outcome = one(column, memory)?;
        let (word, text) = outcome.shown();
        println!("{}, {memory} MiB: {word}: {text}", column.name());
        Ok(outcome)
    };
    while below < BELOW && memory >= STEP {
        let outcome = boot(memory)?;
        below += u32::from(matches!(outcome, Outcome::Kernel(_)));
        outcomes.insert(memory, outcome);
        memory -= STEP;
    }
    // Near the limit, in steps of 1 MiB.
    let last = outcomes.iter().find(|(_, outcome)| !matches!(outcome, Outcome::Kernel(_))).map(|(at, _)| *at);
    for memory in last.map_or(0..0, |last| last - STEP + 1..last) {
        outcomes.insert(memory, boot(memory)?);
    }
    Ok(outcomes)
}

impl Column<'_> {
    fn name(&self) -> String {
        format!("{}, {}, {}", self.kernel.series, self.rootfstype, self.tree)
    }
}

impl Outcome {
    /// The word for the table, and the line that explains it.
    fn shown(&self) -> (&'static str, &str) {
        match self {
            Outcome::Whole(text) if text.starts_with("move") => ("moved", text),
            Outcome::Whole(text) => ("bound", text),
            Outcome::Refused(text) => ("refused", text),
            Outcome::Kernel(text) => ("kernel", text),
            Outcome::Wrong(text) => ("WRONG", text),
        }
    }
}

fn one(column: &Column, memory: u32) -> Result<Outcome> {
    let name = format!(
        "sweep/{}-{}-{}-{memory}",
        column.kernel.series,
        column.rootfstype,
        column.tree.replace(' ', "-")
    );
    let folder = place::fresh(&format!("boots/runs/{name}"))?;
    let append = format!("rootfstype={} loglevel=7", column.rootfstype);
    let machine = Machine {
        kernel: column.kernel,
        initrd: &column.image.archive,
        append: &append,
        memory_mib: memory,
        cpus: 2,
        limit: LIMIT,
        stays: None,
        memory: None,
        folder: &folder,
    };
    let mut run = machine.run()?;
    if !started(&run) && !run.console.contains("Kernel panic") {
        // Emulation sometimes crashes the guest.
        run = machine.run()?;
    }
    Ok(judge(column, &run))
}

fn judge(column: &Column, run: &Run) -> Outcome {
    let account = run.report.lines().find_map(|line| match serde_json::from_str(line) {
        Ok(Line::After(account)) => Some(account),
        _ => None,
    });
    if let Some(account) = account {
        let lost = differences(&column.image.tree, &account.tree, &[]);
        return match (lost.first(), summary(&account)) {
            (None, Some(line)) => Outcome::Whole(line),
            (None, None) => Outcome::Wrong("repot logged nothing".to_owned()),
            (Some(first), _) => Outcome::Wrong(format!("{} differences; {first}", lost.len())),
        };
    }
    let logged: Vec<&str> =
        run.console.lines().filter_map(|line| Some(line.split_once("repot: ")?.1)).collect();
    match logged.iter().find(|line| line.contains("initramfs truncated")) {
        Some(line) if !run.cut_off => Outcome::Refused((*line).to_owned()),
        None if !started(run) && !run.cut_off => Outcome::Kernel(reason(&run.console)),
        _ => Outcome::Wrong(format!("{logged:?}; {}", last_lines(&run.console))),
    }
}

/// Whether the kernel started `/init`. Otherwise it tries other programs.
fn started(run: &Run) -> bool {
    run.console.contains("Run /init as")
}

/// Repot's log line about what it did.
fn summary(account: &Account) -> Option<String> {
    let mut lines = account.log.iter().rev().filter_map(|line| Some(line.split_once("repot: ")?.1));
    lines.find(|line| line.contains("executing \"")).map(str::to_owned)
}

/// Why the kernel gave up.
fn reason(console: &str) -> String {
    let line = console.lines().find(|line| line.contains("Kernel panic")).or(console.lines().last());
    line.map_or("it printed nothing", |line| line.split_once("] ").map_or(line, |(_, rest)| rest))
        .trim()
        .to_owned()
}

fn write(columns: &[Column], results: &[BTreeMap<u32, Outcome>]) -> Result<()> {
    let mut series: Vec<&str> = columns.iter().map(|column| column.kernel.series.as_str()).collect();
    series.dedup();
    let mut text = format!(
        "# Booting with shrinking memory\n\n`cargo xtask sweep {}` boots an image with less and less memory, with the \
         initial root on a ramfs and on a tmpfs: in steps of {STEP} MiB, and of 1 MiB where memory becomes scarce. One tree \
         is small. The other has a file of 48 MiB in a compressed archive, so the kernel's own unpacking needs hardly more \
         than the tree. Each boot must have one of these outcomes:\n\n\
         * **moved**: the real init found every entry as it was packed, on the new tmpfs.\n\
         * **bound**: the same, on the root as the kernel made it, because memory was too short for the move.\n\
         * **refused**: no init ran. repot logged that the initramfs was truncated, and how to fix it.\n\
         * **kernel**: the kernel gave up before it started `/init`. It ran out of memory (`System is deadlocked on \
         memory`), it was unpacked over the archive itself (`invalid magic`, then `No working init found`), or it did not \
         fit and printed nothing.\n\nAny other outcome, above all an init on part of a tree, fails the command.\n",
        series.join(" ")
    );
    let date = command::read(Command::new("date").args(["-u", "+%F"]))?;
    let mut packages = Vec::new();
    for column in columns {
        let package = std::fs::read_to_string(column.kernel.image.with_file_name("package"))?;
        let package = package.trim().to_owned();
        if !packages.contains(&package) {
            packages.push(package);
        }
    }
    writeln!(text, "\n{}, 2 emulated CPUs, on {}.\n", date.trim(), packages.join(" and "))?;
    let count =
        |word| results.iter().flat_map(BTreeMap::values).filter(|outcome| outcome.shown().0 == word).count();
    writeln!(
        text,
        "{} boots: {} moved, {} bound, {} refused, {} ended by the kernel before `/init`.\n",
        results.iter().map(BTreeMap::len).sum::<usize>(),
        count("moved"),
        count("bound"),
        count("refused"),
        count("kernel")
    )?;
    let names: Vec<_> = columns.iter().map(Column::name).collect();
    writeln!(text, "| MiB | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()))?;
    let steps: BTreeSet<u32> = results.iter().flat_map(BTreeMap::keys).copied().collect();
    for step in steps.iter().rev() {
        let cells = results.iter().map(|column| column.get(step).map_or("", |outcome| outcome.shown().0));
        writeln!(text, "| {step} | {} |", cells.collect::<Vec<_>>().join(" | "))?;
    }
    text.push_str("\nThe first boot with each outcome, from the top of each column, with its log line:\n\n");
    for (column, outcomes) in columns.iter().zip(results) {
        let mut seen = BTreeSet::new();
        for (step, outcome) in outcomes.iter().rev() {
            let (word, line) = outcome.shown();
            if seen.insert(word) {
                writeln!(text, "* {}, {step} MiB: `{line}`", column.name())?;
            }
        }
    }
    let path = place::checkout().join("docs/memory-sweep.md");
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
