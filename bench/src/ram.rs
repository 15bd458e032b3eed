//! `cargo xtask bench ram`: the smallest virtual machine in which each contender boots the whole tree.
//!
//! The search goes in steps of 8 MiB. A machine has booted if the stand-in for the real init runs and finds
//! the tally that the image was packed with.

mod image;

use super::contenders::Peer;
use super::{document, machine, plot, text, trees};
use anyhow::{Context, Result};
use image::Image;
use indicatif::{ProgressBar, ProgressStyle};
use repot_harness::kernels::{Kernel, kernel};
use repot_harness::{debian, place, qemu};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SERIES: &str = "6.12";
const STEP: u32 = 8;
/// The search gives up above this size, in MiB.
const MOST: u32 = 3072;
const LIMIT: Duration = Duration::from_secs(300);
const ROOTS: [&str; 2] = ["ramfs", "tmpfs"];

/// One cell of the table.
struct Case<'a> {
    image: &'a Image,
    root: &'a str,
    /// Machines that were killed because they took too long. A search with such machines is uncertain.
    late: AtomicUsize,
    /// Free memory of the smallest machine that booted, in MiB, and that machine.
    free: Mutex<Option<(u32, u32)>>,
}

/// The result of a search.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    mib: Option<u32>,
    /// What is not free in that machine at the first instruction of the real init, in MiB.
    used: Option<u32>,
    late: usize,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.mib {
            Some(mib) => write!(f, "{mib}")?,
            None => write!(f, "not in {MOST}")?,
        }
        if self.late > 0 { write!(f, " ({} cut off)", self.late) } else { Ok(()) }
    }
}

/// The trees that the page shows.
const TREES: [&str; 2] = ["debian", "large"];

/// Searches for all, two machines at a time, prints the tables and writes `docs/bench/ram.md`. What is not
/// measured this time keeps its numbers.
pub(crate) fn ram(names: &[String], only: &[String], peers: &[Peer], quick: bool) -> Result<()> {
    debian::need(&[debian::QEMU, debian::BUSYBOX])?;
    let kernel = kernel(SERIES)?;
    let earlier = std::fs::read_to_string(document::path("ram.md")?).unwrap_or_default();
    let writes = !quick && peers.is_empty();
    let mut page = String::from("# The smallest machine\n\n");
    let _ = writeln!(
        page,
        "MiB of memory of the smallest virtual machine in which the real init finds the whole tree and reads all of it, measured \
         by `cargo xtask bench ram` in steps of {STEP} MiB, on Linux {SERIES} in QEMU with 2 CPUs. The images are compressed with \
         zstd. \"no re-homing\" is the same image with the real init as /init. \"kernel and tree alone\" is what is not free in \
         the payload's smallest machine at the first instruction of the real init. Results vary by one step from search to \
         search. Rows may be from different runs: `--only NAME` measures some again and keeps the others.\n"
    );
    for tree in trees::all().into_iter().filter(|tree| TREES.contains(&tree.name.as_str())) {
        let mut rows = kept(&earlier, &tree.about);
        if names.is_empty() || names.contains(&tree.name) {
            let measured = measure(&tree, only, peers, &kernel)?;
            println!("{}\n\n{}", tree.about, text::table(&COLUMNS, &measured));
            merge(&mut rows, measured);
        }
        let table = text::table(&COLUMNS, &rows);
        let _ = writeln!(page, "## {}\n\n{table}\n![](ram-{}.svg)\n", tree.about, tree.name);
        if writes {
            drawing(&tree, &rows)?;
        }
    }
    let _ = writeln!(page, "{}", machine::about()?);
    if writes { document::write("ram.md", &page) } else { Ok(()) }
}

const COLUMNS: [&str; 3] = ["", "ramfs", "tmpfs"];

/// The rows of a tree: each contender, then what the kernel and the tree take alone.
fn measure(tree: &trees::Tree, only: &[String], peers: &[Peer], kernel: &Kernel) -> Result<Vec<Vec<String>>> {
    tree.prepare()?;
    println!("packing the images of {}", tree.name);
    let images = image::all(tree, only, peers)?;
    let cases: Vec<Case<'_>> = images
        .iter()
        .flat_map(|image| {
            ROOTS.map(|root| Case { image, root, late: AtomicUsize::new(0), free: Mutex::new(None) })
        })
        .collect();
    let found = search_all(&cases, kernel)?;
    let rows = images.iter().enumerate().map(|(at, image)| {
        let cells = found[at * ROOTS.len()..][..ROOTS.len()].iter();
        std::iter::once(image.about.clone()).chain(cells.map(Found::to_string)).collect()
    });
    Ok(rows.chain(floor(&images, &found)).collect())
}

/// The rows of a table of an earlier page.
fn kept(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page.split("\n## ").find_map(|section| section.strip_prefix(heading)).unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    rows.skip(2).map(|row| row.split(" | ").map(|cell| cell.trim().replace("\\|", "|")).collect()).collect()
}

/// Replaces the rows that were measured again. Those that are new come before the last one, the kernel and
/// the tree alone.
fn merge(rows: &mut Vec<Vec<String>>, measured: Vec<Vec<String>>) {
    for row in measured {
        match rows.iter_mut().find(|earlier| earlier[0] == row[0]) {
            Some(earlier) => *earlier = row,
            None => rows.insert(rows.len() - usize::from(rows.iter().any(|row| row[0] == FLOOR)), row),
        }
    }
}

const FLOOR: &str = "kernel and tree alone";

/// What the kernel and the tree take alone: what is in use in the payload's smallest machines at the first
/// instruction of the real init, when the payload and its /init are gone.
fn floor(images: &[Image], found: &[Found]) -> Option<Vec<String>> {
    let at = images.iter().position(|image| image.name == image::PAYLOAD)?;
    let cells = found[at * ROOTS.len()..][..ROOTS.len()].iter();
    let cells = cells.map(|found| found.used.map_or_else(String::new, |used| used.to_string()));
    Some(std::iter::once(FLOOR.to_owned()).chain(cells).collect())
}

/// Draws a table on a ramfs root, the largest machine first.
fn drawing(tree: &trees::Tree, rows: &[Vec<String>]) -> Result<()> {
    let mib = |cell: &String| cell.split(' ').next()?.parse::<u32>().ok();
    let mut bars: Vec<(String, f64, String)> = rows
        .iter()
        .filter_map(|row| Some((row[0].clone(), mib(&row[1])?.into(), format!("{} MiB", row[1]))))
        .collect();
    bars.sort_by(|one, other| other.1.total_cmp(&one.1));
    let title = format!("{}: smallest machine, MiB, Linux {SERIES}, ramfs root", tree.about);
    plot::bars(&document::path(&format!("ram-{}.svg", tree.name))?, &title, &bars)
}

/// The smallest memory of each case, in the order of the cases.
fn search_all(cases: &[Case<'_>], kernel: &Kernel) -> Result<Vec<Found>> {
    let bar = ProgressBar::new(cases.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} searches, {elapsed}, {msg}")?);
    let next = AtomicUsize::new(0);
    let found = Mutex::new(vec![Found::default(); cases.len()]);
    let work = || -> Result<()> {
        while let Some((at, case)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            cases.get(at).map(|case| (at, case))
        } {
            let mib = search(case, kernel, &bar)?;
            bar.inc(1);
            if let Ok(mut found) = found.lock() {
                let used = case.free.lock().ok().and_then(|free| *free).map(|(memory, free)| memory - free);
                found[at] = Found { mib, used, late: case.late.load(Ordering::Relaxed) };
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mine = work();
        other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(mine)
    })?;
    bar.finish_and_clear();
    Ok(found.into_inner().unwrap_or_default())
}

/// Searches from a guess in growing steps until one machine boots and a smaller one does not, then by
/// bisection.
fn search(case: &Case<'_>, kernel: &Kernel, bar: &ProgressBar) -> Result<Option<u32>> {
    let boots = |memory: u32| {
        bar.set_message(format!("{} on {} with {memory} MiB", case.image.name, case.root));
        boots(case, kernel, memory)
    };
    let guess = case.image.guess / STEP * STEP;
    let mut stride = STEP;
    let (mut low, mut high) = if boots(guess)? {
        let mut high = guess;
        loop {
            let low = high.saturating_sub(stride).max(STEP);
            if low == STEP || !boots(low)? {
                break (low, high);
            }
            high = low;
            stride *= 2;
        }
    } else {
        let mut low = guess;
        loop {
            let high = low + stride;
            if high > MOST {
                return Ok(None);
            }
            if boots(high)? {
                break (low, high);
            }
            low = high;
            stride *= 2;
        }
    };
    while high - low > STEP {
        let middle = low + (high - low) / 2 / STEP * STEP;
        if boots(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(Some(high))
}

fn boots(case: &Case<'_>, kernel: &Kernel, memory_mib: u32) -> Result<bool> {
    let folder =
        place::fresh(&format!("bench/ram/runs/{}-{}-{}", case.image.tree, case.image.name, case.root))?;
    let machine = qemu::Machine {
        kernel,
        initrd: &case.image.archive,
        append: &format!("rootfstype={} quiet", case.root),
        memory_mib,
        cpus: 2,
        limit: LIMIT,
        stays: None,
        memory: None,
        folder: &folder,
    };
    // QEMU refuses a machine that is too small for the archive. Then there is no console either.
    let Ok(run) = machine.run() else { return Ok(false) };
    let told = super::guest_output::GuestOutput::new(run.report.replace('\r', "").as_bytes());
    case.late.fetch_add(usize::from(run.cut_off), Ordering::Relaxed);
    let whole = told.word("tally") == Some(case.image.tally.as_str());
    let free = told.word("free").and_then(|mib| mib.parse().ok()).filter(|_| whole);
    if let (Some(free), Ok(mut smallest)) = (free, case.free.lock())
        && smallest.is_none_or(|(memory, _)| memory_mib < memory)
    {
        *smallest = Some((memory_mib, free));
    }
    std::fs::write(folder.join("memory"), format!("{memory_mib} {whole}\n"))
        .context("cannot note the memory")?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, FLOOR, kept, merge, text};

    #[test]
    fn a_row_that_is_not_measured_keeps_its_numbers() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let earlier =
            vec![row(["tar | tar", "512", "520"]), row(["repot", "344", "520"]), row([FLOOR, "272", "272"])];
        let page =
            format!("# Page\n\n## A tree\n\n{}\n![](a.svg)\n\n## Another\n", text::table(&COLUMNS, &earlier));
        let mut rows = kept(&page, "A tree");
        assert_eq!(rows, earlier);
        merge(&mut rows, vec![row(["repot", "336", "512"]), row(["payload", "280", "280"])]);
        let names: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(names, ["tar | tar", "repot", "payload", FLOOR]);
        assert_eq!(rows[1][1], "336");
        assert!(kept(&page, "Another").is_empty());
    }
}
