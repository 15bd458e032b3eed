//! `repot inspect`: what is inside an image, what memory it needs, and what is wrong with it.

pub(crate) mod entries;
pub mod payload;
mod survey;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cli::Inspect;
use crate::programs::{self, Programs};
use crate::ram::{Footprint, Need};
use crate::{report, segments, size};

pub use survey::{EndMarker, SegmentFacts, Survey};

/// What is said about an image, in words or as JSON.
#[derive(Debug, Serialize)]
struct Findings {
    image: String,
    bytes: u64,
    segments: Vec<SegmentFacts>,
    entries: u64,
    inodes: u64,
    data: u64,
    hard_links: u64,
    xattrs: u64,
    largest: Vec<Largest>,
    repot: bool,
    init: Option<String>,
    end_marker: EndMarker,
    payload: Option<payload::Facts>,
    ram: Need,
    problems: Vec<String>,
    damage: Option<String>,
}

#[derive(Debug, Serialize)]
struct Largest {
    name: String,
    bytes: u64,
}

/// Runs the command. A damaged image is reported as far as it can be read, and is a failure.
pub fn run(args: &Inspect) -> Result<()> {
    let shown = args.image.display().to_string();
    let input: Box<dyn Read> = if args.image == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&args.image).with_context(|| format!("cannot open {shown}"))?)
    };
    let mut counted = Counted { input, bytes: 0 };
    let mut survey = Survey::default();
    let mut read = segments::read(&mut counted, &mut survey);
    if survey.segments.is_empty() && !args.json {
        // Nothing was found that could be told of.
        read.with_context(|| shown.clone())?;
        bail!("{shown}: there is nothing in it");
    }
    let root = match survey.unpacked() {
        Some(Ok(root)) => Some(root),
        Some(Err(error)) => {
            read = read.and(Err(error));
            None
        }
        None => None,
    };
    let findings = findings(shown, counted.bytes, &survey, root.as_ref(), read.as_ref().err());
    let text = if args.json { serde_json::to_string_pretty(&findings)? + "\n" } else { words(&findings) };
    report::print(&text)?;
    read.with_context(|| findings.image)
}

fn findings(
    image: String,
    bytes: u64,
    survey: &Survey,
    root: Option<&payload::Root>,
    damage: Option<&anyhow::Error>,
) -> Findings {
    let tree = root.map_or(&survey.tree, |root| &root.tree);
    let unpacked = programs::of_tree(tree);
    let program = |id| match root {
        Some(root) => root.outer.get(&id).map_or_else(|| unpacked(id), |id| survey.program(*id)),
        None => survey.program(id),
    };
    let boot = Programs { tree, program: &program, config: &survey.config, repot: survey.repot() }.boot();
    let mut problems = survey.problems.clone();
    problems.extend(survey.left_out());
    if survey.segments.is_empty() && damage.is_none() {
        problems.push("there is nothing in it".into());
    }
    problems.extend(boot.problems);
    problems.extend(programs::nodes(tree));
    if survey.end_marker == EndMarker::Wrong {
        problems
            .push("the end marker does not agree with the members: something was cut out or changed".into());
    }
    if survey.segments.last().is_some_and(|last| !last.trailer) {
        problems
            .push("the last archive has no TRAILER!!!: it may have been cut off between two members".into());
    }
    Findings {
        image,
        bytes,
        segments: survey.segments.clone(),
        entries: survey.totals.entries,
        inodes: survey.totals.inodes,
        data: survey.totals.bytes,
        hard_links: survey.hard_links,
        xattrs: survey.xattrs,
        largest: survey
            .largest
            .iter()
            .map(|(bytes, name)| Largest { name: name.clone(), bytes: *bytes })
            .collect(),
        repot: survey.repot(),
        init: boot.init,
        end_marker: survey.end_marker,
        payload: root.map(|root| root.facts.clone()),
        ram: match root {
            Some(root) => root.inner.payload(bytes, root.facts.compressed),
            None => Footprint::of(&survey.tree).need(bytes),
        },
        problems,
        damage: damage.map(|error| format!("{error:#}")),
    }
}

fn words(findings: &Findings) -> String {
    let row = |name: &str, value: String| (name.to_string(), value);
    let init = match (&findings.init, findings.repot) {
        (Some(init), true) => format!("/init is repot, which runs {init}"),
        (Some(init), false) => format!("{init}; the root stays where it is"),
        (None, _) => "none that can run".into(),
    };
    let marker = match findings.end_marker {
        EndMarker::None => "none",
        EndMarker::Whole => "agrees with the members",
        EndMarker::Wrong => "does not agree with the members",
    };
    let mut rows = vec![row("image", format!("{}, {}", findings.image, size::human(findings.bytes)))];
    for segment in &findings.segments {
        rows.push(row(
            "segment",
            format!(
                "at byte {}: {}, {} of {}, {} entries",
                segment.offset,
                segment.compression,
                size::human(segment.bytes),
                size::human(segment.unpacked),
                segment.entries
            ),
        ));
    }
    if let Some(payload) = &findings.payload {
        let payload::Facts { entries, bytes, compressed, chunks, frames, digest, .. } = payload;
        rows.push(row(
            "payload",
            format!(
                "verified: {entries} entries, {}, {} in {chunks} chunks and {frames} frames",
                size::human(*bytes),
                size::human(*compressed)
            ),
        ));
        rows.push(row("digest", format!("payload={digest}")));
    }
    rows.extend([
        row(
            "entries",
            format!("{} ({} inodes, {} hard links)", findings.entries, findings.inodes, findings.hard_links),
        ),
        row("data", size::human(findings.data)),
        row("xattrs", format!("on {} entries", findings.xattrs)),
        row("init", init),
        row("end marker", marker.into()),
        row("RAM to boot", findings.ram.to_string()),
        row("RAM after a move", size::mib(findings.ram.after)),
    ]);
    for file in &findings.largest {
        rows.push(row("large file", format!("{}  {}", size::human(file.bytes), file.name)));
    }
    let mut text = report::table(&rows);
    for problem in &findings.problems {
        text += &format!("problem: {problem}\n");
    }
    text
}

/// Counts what was read.
struct Counted {
    input: Box<dyn Read>,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.input.read(buffer)?;
        self.bytes += got as u64;
        Ok(got)
    }
}
