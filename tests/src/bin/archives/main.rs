//! `cargo xtask archives`: reads the archives of the tests of libarchive and of GNU tar with `pack`, and
//! compares each entry with what bsdtar and GNU tar extract.

mod collect;
mod compare;
mod peers;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use repot_cli::source::oci::Choice;
use repot_cli::source::{self, Source};
use repot_harness::{debian, place};

use self::compare::Tree;
use self::peers::Peer;

/// Compare what `pack` reads with what bsdtar and GNU tar extract, and write docs/tool/archives.md.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask archives",
    bin_name = "cargo xtask archives",
    after_help = "Examples:\n  cargo xtask archives\n  cargo xtask archives sparse"
)]
struct Arguments {
    /// Part of the name of an archive
    #[arg(default_value = "")]
    filter: String,
}

/// What came out for one archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// The same as these peers.
    Same(Vec<&'static str>),
    /// Refused here, and by the peers too.
    AllRefuse(String),
    /// Refused here with this reason, which names the format or the danger.
    Refused(String),
    /// Something else.
    Bad(String),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    debian::need_root("extracting archives")?;
    debian::need(&debian::TESTS)?;
    debian::need(&[("lzop", "lzop")])?;
    let mut results = Vec::new();
    for (set, archives) in collect::all()? {
        for path in archives {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.contains(&arguments.filter) {
                continue;
            }
            let verdict = examine(&path).with_context(|| name.clone())?;
            if let Verdict::Bad(why) = &verdict {
                println!("{set}/{name}: {why}");
            }
            results.push((set, name, verdict));
        }
    }
    let table = table(&results);
    println!("{table}");
    let bad = results.iter().filter(|(.., verdict)| matches!(verdict, Verdict::Bad(_))).count();
    ensure!(bad == 0, "{bad} of {} archives differ", results.len());
    ensure!(!results.is_empty(), "no archive is called so");
    if arguments.filter.is_empty() {
        let path = place::checkout().join("docs/tool/archives.md");
        fs::write(&path, format!("{TEXT}\n\n{table}")).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Reads an archive with everything and compares.
fn examine(path: &Path) -> Result<Verdict> {
    let scratch = place::kept("archives/scratch")?;
    let ours = source::open(path, &Choice::default(), &scratch);
    let mut theirs: Vec<(Peer, Tree)> = Vec::new();
    for peer in Peer::all(path) {
        if let Some(tree) = peer.extract(path, &place::fresh("archives/extracted")?)? {
            theirs.push((peer, tree));
        }
    }
    let Source { tree, .. } = match ours {
        Ok(source) => source,
        Err(error) => {
            let reason = format!("{error:#}");
            let reason = reason.replace(&format!("{}: ", path.display()), "");
            return Ok(match (theirs.is_empty(), is_named(&reason)) {
                (true, _) => Verdict::AllRefuse(reason),
                (false, true) => Verdict::Refused(reason),
                (false, false) => Verdict::Bad(format!("refused: {reason}")),
            });
        }
    };
    let ours = compare::ours(&tree)?;
    let mut same = Vec::new();
    let mut differences = Vec::new();
    for (peer, tree) in &theirs {
        match compare::difference(&ours, tree) {
            None => same.push(peer.name()),
            Some(difference) => differences.push(format!("{}: {difference}", peer.name())),
        }
    }
    Ok(if same.is_empty() {
        let why = if theirs.is_empty() { "no peer reads it".into() } else { differences.join("; ") };
        Verdict::Bad(why)
    } else {
        Verdict::Same(same)
    })
}

/// Whether a refusal says what the file is, or what is wrong with it that the peers overlook.
fn is_named(reason: &str) -> bool {
    let known = [
        "this is a",
        "this is compressed with",
        "the archive has no members",
        "the blocks of zeros that end an archive are missing",
        "a name with \"..\"",
        "it begins in an earlier volume",
    ];
    known.iter().any(|known| reason.contains(known))
}

fn table(results: &[(&str, String, Verdict)]) -> String {
    let mut text = String::new();
    for set in ["libarchive", "tar"] {
        let all: Vec<_> = results.iter().filter(|(of, ..)| *of == set).collect();
        let count = |wanted: fn(&Verdict) -> bool| all.iter().filter(|(.., verdict)| wanted(verdict)).count();
        text += &format!(
            "## {set}\n\n{} archives: {} read alike, {} refused by all, {} refused by `pack` only.\n\n\
             | refused | by | why |\n|---|---|---|\n",
            all.len(),
            count(|verdict| matches!(verdict, Verdict::Same(_))),
            count(|verdict| matches!(verdict, Verdict::AllRefuse(_))),
            count(|verdict| matches!(verdict, Verdict::Refused(_))),
        );
        for (_, name, verdict) in &all {
            let (by, why) = match verdict {
                Verdict::Refused(why) => ("`pack`", why),
                Verdict::AllRefuse(why) => ("all", why),
                Verdict::Same(_) | Verdict::Bad(_) => continue,
            };
            text += &format!("| {name} | {by} | {} |\n", why.replace('|', "\\|"));
        }
        text += "\n| read alike | as |\n|---|---|\n";
        for (_, name, verdict) in &all {
            if let Verdict::Same(peers) = verdict {
                text += &format!("| {name} | {} |\n", peers.join(", "));
            }
        }
        text += "\n";
    }
    text.trim_end().to_string() + "\n"
}

/// The archives in a directory, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for item in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        files.push(item?.path());
    }
    files.sort();
    Ok(files)
}

const TEXT: &str = "# Archives that other programs test themselves with\n\n`cargo xtask archives` reads the tar and cpio \
                    archives of the tests of libarchive, and those that the tests of GNU tar make, with `pack`. It \
                    compares each entry with what bsdtar and GNU tar extract as root: type, mode, owner, time, \
                    contents, holes, links, extended attributes and ACLs. An archive is read alike if the result \
                    equals that of one of them; they do not always agree. The cpio archives are those of the formats \
                    that the kernel reads.";
