//! Numbers for people. A table has the same text in the terminal and in Markdown.

use super::race::{Race, Score};

/// A table in Markdown with aligned columns.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let whole = |row: &Vec<String>| row.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(whole).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count(), 3]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let rule: Vec<String> = widths
        .iter()
        .enumerate()
        .map(
            |(column, width)| {
                if column == 0 { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) }
            },
        )
        .collect();
    let mut text = line(head.to_vec());
    text.push_str(&line(rule.iter().map(String::as_str).collect()));
    for row in &rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// The table of one race.
pub(crate) fn race(race: &Race) -> String {
    let base = race.of("repot-all").or(race.of("repot-1")).map(Score::median);
    let floor = race.of("floor-all").or(race.of("floor-1")).map(Score::median);
    let ratio = |of: f64, to: Option<f64>| to.map_or_else(|| "".into(), |to| format!("{:.2}", of / to));
    let rows: Vec<Vec<String>> = race
        .scores
        .iter()
        .map(|score| {
            let mut about = score.contender.about.clone();
            if score.flaw.is_some() {
                about.push_str(" (incomplete)");
            }
            vec![
                about,
                seconds(score.median()),
                seconds(score.least()),
                ratio(score.median(), base),
                ratio(score.median(), floor),
                seconds(score.own()),
            ]
        })
        .collect();
    table(&["", "median", "minimum", "vs repot", "vs floor", "CPU time"], &rows)
}

/// The memory table of one race; empty if no memory was measured.
pub(crate) fn memory(race: &Race) -> String {
    let rows: Vec<Vec<String>> = race
        .scores
        .iter()
        .filter_map(|score| {
            let memory = score.memory?;
            let claim = score.claim.clone().unwrap_or_default();
            let contender = score.contender.about.clone();
            let [contents, slab, programs, all] =
                [memory.contents, memory.slab, memory.programs, memory.all].map(mib);
            Some(vec![contender, contents, slab, programs, all, claim, memory.samples.to_string()])
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    table(&["", "contents", "slab", "programs", "all", "log", "samples"], &rows)
}

/// Milliseconds below ten seconds, seconds above.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        _ if seconds < 0.01 => format!("{:.2} ms", seconds * 1e3),
        _ if seconds < 10.0 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.1} s"),
    }
}

/// A number of bytes in MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

/// The title of a table.
pub(crate) fn medians(rounds: usize) -> String {
    if rounds == 1 { "One round".to_owned() } else { format!("Medians of {rounds} rounds") }
}

/// The median.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (count, at) = (sorted.len(), sorted.len() / 2);
    match count {
        0 => f64::NAN,
        _ if count % 2 == 1 => sorted[at],
        _ => f64::midpoint(sorted[at - 1], sorted[at]),
    }
}

/// A count for a drawing or a ratio.
#[allow(clippy::cast_precision_loss, reason = "the digits beyond 2^53 do not matter")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
