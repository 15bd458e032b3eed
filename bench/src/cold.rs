//! `cargo xtask bench cold`: the use of large folios if free memory is warm, cold, or in single pages only.

use super::contenders::{self, Contender, Way};
use super::race::{self, Race, Score};
use super::run::Terms;
use super::trees::{self, Tree};
use super::warm::{Free, Held, touch};
use super::{document, machine, plot, report, text};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Write;

const TREES: [&str; 3] = ["large", "small", "debian"];
/// Bytes that are touched to measure how long that takes.
const PROBE: u64 = 64 << 20;

/// A state of free memory, and the results with it.
struct Kind {
    name: &'static str,
    free: Free,
    /// Microseconds to touch 1 MiB.
    touched: f64,
    /// MiB that are free in pieces of 64 KiB or more.
    larger: Option<u64>,
    /// One race per tree.
    races: Vec<Race>,
}

/// Measures on the named trees, or on the three default ones, prints the results and writes
/// `docs/bench/cold.md`.
pub(crate) fn cold(names: &[String], rounds: usize, terms: Terms<'_>, quick: bool) -> Result<()> {
    let rounds = if quick { 1 } else { rounds };
    let wanted = |tree: &Tree| match names {
        [] => TREES.contains(&tree.name.as_str()),
        names => names.contains(&tree.name),
    };
    let mut trees: Vec<Tree> = trees::all().into_iter().filter(wanted).collect();
    trees.sort_by_key(|tree| TREES.iter().position(|name| *name == tree.name));
    trees.iter().try_for_each(Tree::prepare)?;
    let (contenders, always) = contenders()?;
    let kind = |name, free| Kind { name, free, touched: 0.0, larger: None, races: Vec::new() };
    let mut kinds = [kind("warm", Free::Warm), kind("cold", Free::Cold), kind("single pages", Free::AsItIs)];
    let runs = race::runs(&contenders, rounds, 1) + race::runs(&always, 1, 1);
    let total = kinds.len() * trees.len() * runs;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {eta} left, {msg}")?;
    let bar = ProgressBar::new(total as u64).with_style(style);
    for kind in &mut kinds {
        let pieces = if kind.free == Free::AsItIs { Some(Held::hold("alternate", 0)?) } else { None };
        kind.larger = pieces.as_ref().map(|held| held.larger >> 20);
        {
            let _held = kind.free.prepare(4 * PROBE)?;
            kind.touched = touch(PROBE)?.as_secs_f64() * 1e6 / text::number(PROBE >> 20);
        }
        for tree in &trees {
            let terms = Terms { free: kind.free, ..terms };
            let mut race = race::race(tree, &contenders, rounds, 1, terms, &bar)?;
            race.scores.append(&mut race::race(tree, &always, 1, 1, terms, &bar)?.scores);
            bar.suspend(|| println!("{}\n\n{}\n{}", kind.name, text::race(&race), text::memory(&race)));
            kind.races.push(race);
        }
    }
    bar.finish_and_clear();
    let page = page(&kinds, rounds)?;
    println!("{page}");
    if quick || !names.is_empty() {
        return Ok(());
    }
    for at in 0..trees.len() {
        drawing(&kinds, at)?;
    }
    document::write("cold.md", &page)
}

/// repot with automatic large folios and without; and separately with `huge=always`, which takes half a
/// minute for many files.
fn contenders() -> Result<(Vec<Contender>, Vec<Contender>)> {
    let all = contenders::all(&[])?;
    let find = |name: &str| all.iter().find(|one| one.name == name).cloned();
    let ours = find("repot-all").or_else(|| find("repot-1")).context("no repot")?;
    let pages = find("repot-pages").context("no repot without large folios")?;
    let mut always = pages.clone();
    always.name = "repot-always".into();
    always.about = "repot, huge=always".into();
    if let Way::Init { config, .. } = &mut always.way {
        *config = config.replace("huge=never", "huge=always");
    }
    Ok((vec![ours, pages], vec![always]))
}

fn page(kinds: &[Kind], rounds: usize) -> Result<String> {
    let mut page = format!(
        "# Cold and fragmented memory\n\nMeasured by `cargo xtask bench cold` on {}\n\n\
         * \"warm\": as much memory as the move needs was in use a moment before.\n\
         * \"cold\": another program holds the memory that this virtual machine has. It allocates until touching memory takes \
         time; from then on the host must supply every page.\n\
         * \"single pages\": another program holds every other page of all memory, so at first nothing is free in larger blocks. \
         The kernel can make some by moving that program's pages together.\n\n\
         \"huge=always\" can be set in the configuration; repot itself never uses it, and it runs once here. \"CPU time\" is the \
         sum over both threads. It is compared because it depends least on other processes. \"contents\" is how much was in \
         memory twice at the peak of a separate run, other programs included.\n\n",
        machine::about()?,
    );
    let rows: Vec<Vec<String>> = kinds
        .iter()
        .map(|kind| {
            let larger = kind.larger.map_or_else(String::new, |mib| format!("{mib} MiB"));
            vec![kind.name.to_owned(), format!("{:.0} µs", kind.touched), larger]
        })
        .collect();
    page.push_str(&text::table(&["", "time to touch 1 MiB", "free in blocks of 64 KiB or more"], &rows));
    for at in 0..kinds[0].races.len() {
        let race = &kinds[0].races[at];
        let _ = write!(
            page,
            "\n## {}\n\n{}.\n\n{}\n![](cold-{}.svg)\n",
            report::title(race),
            text::medians(rounds),
            table(kinds, at),
            race.tree.name
        );
        for (kind, score) in
            kinds.iter().flat_map(|kind| kind.races[at].scores.iter().map(move |score| (kind, score)))
        {
            if let Some(flaw) = &score.flaw {
                let _ = write!(page, "\n{}, {}: {flaw}.\n", score.contender.about, kind.name);
            }
        }
    }
    Ok(page)
}

fn table(kinds: &[Kind], at: usize) -> String {
    let rows = kinds.iter().flat_map(|kind| {
        let race = &kind.races[at];
        let base = race.of("repot-pages").map_or(f64::NAN, Score::own);
        race.scores.iter().map(move |score| {
            vec![
                format!("{}, {}", score.contender.about, kind.name),
                text::seconds(score.median()),
                text::seconds(score.least()),
                text::seconds(score.own()),
                format!("{:.2}", score.own() / base),
                score.memory.map_or_else(String::new, |memory| text::mib(memory.contents)),
            ]
        })
    });
    let head = ["", "median", "minimum", "CPU time", "vs no large folios", "contents"];
    text::table(&head, &rows.collect::<Vec<_>>())
}

fn drawing(kinds: &[Kind], at: usize) -> Result<()> {
    let mut bars = Vec::new();
    for row in 0..kinds[0].races[at].scores.len() {
        for kind in kinds {
            let score = &kind.races[at].scores[row];
            let name = format!("{}, {}", score.contender.about, kind.name);
            bars.push((name, score.median(), text::seconds(score.median())));
        }
    }
    let race = &kinds[0].races[at];
    plot::bars(&document::path(&format!("cold-{}.svg", race.tree.name))?, &report::title(race), &bars)
}
