//! `repot inspect`: shows what is in an image, what memory it needs, and what is wrong with it.

mod described;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::cli::Inspect;
use crate::payload;
use crate::programs::{self, Boot, Programs};
use crate::ram::{Footprint, Need, Page};
use crate::report::{Format, Summary, finish, row, size, table};
use crate::survey::file::ImageFile;
use crate::survey::spool::Root;
use crate::survey::{EndMarker, SegmentFacts, Survey};

/// What an image holds.
#[derive(Debug, Serialize)]
struct Findings {
    image: String,
    /// Size of the image in bytes.
    bytes: u64,
    segments: Vec<SegmentFacts>,
    entries: u64,
    inodes: u64,
    data: u64,
    hard_links: u64,
    xattrs: u64,
    largest: Vec<Largest>,
    /// Whether `/init` is repot.
    repot: bool,
    init: Option<String>,
    /// The program that the runner runs.
    program: Option<described::Described>,
    end_marker: EndMarker,
    /// Bytes of the boot configuration behind the image.
    bootconfig: u64,
    payload: Option<payload::Facts>,
    #[serde(flatten)]
    page: Page,
    ram: Need,
    /// The memory that a payload needs with `zram=auto`.
    ram_zram: Option<Need>,
    problems: Vec<String>,
    /// Why the image could not be read to its end.
    damage: Option<String>,
}

#[derive(Debug, Serialize)]
struct Largest {
    name: String,
    bytes: u64,
}

/// Runs the command. A corrupt image is reported up to the corruption, and the command fails.
pub fn run(args: &Inspect) -> Result<()> {
    let shown = args.image.display().to_string();
    let mut image = ImageFile::open(&args.image)?;
    let mut survey = Survey::default();
    let mut read = image.read(&mut survey);
    if survey.segments.is_empty() && !args.json {
        // The summary would have no line to show.
        read?;
        bail!("{shown} is empty");
    }
    let page = Page::choose(args.page_size, survey.architecture())?;
    let root = match survey.unpacked(page.size) {
        Some(Ok(root)) => Some(root),
        Some(Err(error)) => {
            read = read.and(Err(error.context(shown.clone())));
            None
        }
        None => None,
    };
    let findings = findings(shown, image.bytes(), &survey, root.as_ref(), page, read.as_ref().err());
    finish(Format { json: args.json, stdout_taken: false }, &findings)?;
    read
}

fn findings(
    image: String,
    bytes: u64,
    survey: &Survey,
    root: Option<&Root>,
    page: Page,
    damage: Option<&anyhow::Error>,
) -> Findings {
    let mut boot = boot(survey, root);
    let program = described::read(survey, root, &mut boot.problems);
    let largest = |(bytes, name): &(u64, String)| Largest { name: name.clone(), bytes: *bytes };
    Findings {
        image,
        bytes,
        segments: survey.segments.clone(),
        entries: survey.totals.entries,
        inodes: survey.totals.inodes,
        data: survey.totals.bytes,
        hard_links: survey.hard_links,
        xattrs: survey.xattrs(),
        largest: survey.largest.iter().map(largest).collect(),
        repot: survey.repot(),
        init: boot.init,
        program,
        end_marker: survey.end_marker,
        bootconfig: survey.bootconfig.as_ref().map_or(0, |bytes| bytes.len() as u64),
        payload: root.map(|root| root.facts.clone()),
        page,
        ram: match root {
            Some(root) => root.inner.payload(bytes, root.facts.compressed),
            None => Footprint::of(survey.tree(), page.size).need(bytes),
        },
        ram_zram: root.map(|root| {
            let payload::Facts { compressed, zram_thousandths, .. } = root.facts;
            root.inner.payload_with_zram(bytes, compressed, zram_thousandths)
        }),
        problems: problems(survey, root, boot.problems, damage.is_some()),
        damage: damage.map(|error| format!("{error:#}")),
    }
}

/// Which init would run.
fn boot(survey: &Survey, root: Option<&Root>) -> Boot {
    let tree = root.map_or(survey.tree(), |root| &root.tree);
    let unpacked = programs::of_tree(tree);
    let program = |id| match root {
        Some(root) => root.outer.get(&id).map_or_else(|| unpacked(id), |id| survey.program(*id)),
        None => survey.program(id),
    };
    Programs { tree, program: &program, config: survey.config(), repot: survey.repot() }.boot()
}

fn problems(survey: &Survey, root: Option<&Root>, boot: Vec<String>, damaged: bool) -> Vec<String> {
    let mut problems = survey.problems.clone();
    problems.extend(survey.surprises());
    problems.extend(survey.missing_features());
    if survey.config_is_unknown() {
        problems.push(
            "/etc/repot.conf is a link to a file that is not called repot.conf: its settings are not shown here".into(),
        );
    }
    if survey.segments.is_empty() && !damaged {
        problems.push("the image is empty".into());
    }
    problems.extend(boot);
    problems.extend(programs::surroundings(root.map_or(survey.tree(), |root| &root.tree)));
    if survey.end_marker == EndMarker::Wrong {
        problems.push("the end marker disagrees with the members: some were removed or changed".into());
    }
    if let Some(missing) = survey.truncated().filter(|_| survey.repot()) {
        problems.push(format!("/init would refuse to boot it as truncated: {missing}"));
    }
    if survey.segments.last().is_some_and(|last| !last.trailer) {
        problems.push("the last archive has no TRAILER!!!: it may be truncated between two members".into());
    }
    problems
}

impl Summary for Findings {
    fn text(&self) -> String {
        let init = match (&self.init, self.repot) {
            (Some(init), true) => format!("/init is repot, which runs {init}"),
            (Some(init), false) => format!("{init}; the root stays where it is"),
            (None, _) => "none that can run".into(),
        };
        let marker = match self.end_marker {
            EndMarker::None => "none",
            EndMarker::Whole => "agrees with the members",
            EndMarker::Wrong => "disagrees with the members",
        };
        let mut rows = vec![row("image", format!("{}, {}", self.image, size::human(self.bytes)))];
        rows.extend(self.segments.iter().map(segment));
        if self.bootconfig > 0 {
            rows.push(row("bootconfig", format!("{} at the end", size::human(self.bootconfig))));
        }
        rows.extend(self.payload.iter().flat_map(payload));
        let (entries, inodes, links) = (self.entries, self.inodes, self.hard_links);
        rows.extend(self.program.iter().map(|program| row("program", program.to_string())));
        rows.extend([
            row("entries", format!("{entries} ({inodes} inodes, {links} hard links)")),
            row("data", size::human(self.data)),
            row("xattrs", format!("on {} entries", self.xattrs)),
            row("init", init),
            row("end marker", marker),
        ]);
        rows.extend(self.page.row());
        rows.push(row("RAM to boot", self.ram.to_string()));
        rows.extend(self.ram_zram.iter().map(|need| row("with zram=auto", need.to_string())));
        rows.extend([row("RAM after a move", size::mib(self.ram.after))]);
        let large = |file: &Largest| row("large file", format!("{}  {}", size::human(file.bytes), file.name));
        rows.extend(self.largest.iter().map(large));
        let problems = self.problems.iter().map(|problem| format!("problem: {problem}\n"));
        table(&rows) + &problems.collect::<String>()
    }
}

fn segment(segment: &SegmentFacts) -> (String, String) {
    let SegmentFacts { offset, compression, entries, .. } = segment;
    let (bytes, unpacked) = (size::human(segment.bytes), size::human(segment.unpacked));
    row("segment", format!("at byte {offset}: {compression}, {bytes} of {unpacked}, {entries} entries"))
}

fn payload(payload: &payload::Facts) -> [(String, String); 2] {
    let payload::Facts { entries, chunks, frames, digest, .. } = payload;
    let (bytes, compressed) = (size::human(payload.bytes), size::human(payload.compressed));
    let verified =
        format!("verified: {entries} entries, {bytes}, {compressed} in {chunks} chunks and {frames} frames");
    [row("payload", verified), row("digest", format!("payload={digest}"))]
}
