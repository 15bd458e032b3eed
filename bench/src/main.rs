//! `cargo xtask bench`: repot and other ways of moving a root, on the same trees, in turn.
//!
//! Each run gets a fresh root in its own mount namespace. The machine's own mounts stay as they are.

mod arena;
mod calls;
mod cold;
mod contenders;
mod copying;
mod decoders;
mod document;
mod guest_output;
mod looking;
mod machine;
mod memory;
mod one_program;
mod packing;
mod payload_images;
mod plot;
mod programs;
mod race;
mod races;
mod ram;
mod report;
mod run;
mod sys;
mod text;
mod trees;
mod warm;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use contenders::{Contender, Peer};
use repot_harness::build::{self, Arch};
use repot_harness::debian;
use run::Terms;
use std::process::ExitCode;
use trees::Tree;
use warm::Free;

/// Measure time and memory against other ways of moving a root.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask bench",
    bin_name = "cargo xtask bench",
    after_help = "Examples:\n  cargo xtask bench --quick --tree debian\n  cargo xtask bench --peer NAME=PATH"
)]
struct Bench {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    choice: Choice,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Ways of copying one file, by its size
    Copy,
    /// The smallest virtual machine in which each contender boots the whole tree
    Ram,
    /// System calls for each entry of a tree
    Calls,
    /// Payload images: memory and time
    Payload,
    /// Decoders of payloads, and the cost of frames and windows
    Decoders,
    /// The runner: time to the program's first instruction, and the smallest machine
    Run,
    /// The tool: listing, extracting and creating images, against the programs that do the same
    Tool(looking::Options),
    /// Large folios with free memory that is warm, cold, or in single pages
    Cold,
}

#[derive(Debug, Args)]
struct Choice {
    /// Rounds of each race; with 7, all races take about 45 minutes on two CPUs
    #[arg(long, default_value_t = 7, global = true)]
    rounds: usize,
    /// Rounds with a million entries, each of which takes four minutes
    #[arg(long, default_value_t = 1, global = true)]
    heavy_rounds: usize,
    /// Trees to move [default: all]
    #[arg(long, value_name = "NAME", global = true)]
    tree: Vec<String>,
    /// Contenders; for `payload`: `ram` or `time` [default: all]
    #[arg(long, value_name = "NAME", global = true)]
    only: Vec<String>,
    /// Another program, run as /init
    #[arg(long, value_name = "NAME=PATH", global = true)]
    peer: Vec<Peer>,
    /// The old root's file system
    #[arg(long, value_name = "TYPE", default_value = "ramfs", global = true)]
    root: Vec<String>,
    /// Do not touch free memory before each run: the host's page faults then hit the contenders
    #[arg(long, global = true)]
    cold: bool,
    /// Few rounds, and write nothing to docs/
    #[arg(long, global = true)]
    quick: bool,
}

fn main() -> ExitCode {
    // `packing` has its own options, so it is not a part.
    let mut words = std::env::args_os().skip(1);
    let result = match words.next() {
        Some(word) if word == "packing" => {
            packing::packing(&packing::Packing::parse_from(words_of("cargo xtask packing", words)))
        }
        _ => bench(&Bench::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments of a program with another name.
fn words_of(name: &str, rest: impl Iterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    std::iter::once(name.into()).chain(rest).collect()
}

fn bench(bench: &Bench) -> Result<()> {
    debian::need_root("the benchmark")?;
    let Bench { part, choice } = bench;
    if let Some(Part::Tool(looking::Options { tool })) = part {
        return looking::tool(tool.as_deref(), choice.rounds, choice.quick);
    }
    let init = build::init(Arch::X86_64)?;
    let free = if choice.cold { Free::AsItIs } else { Free::Warm };
    let terms = Terms { root: "ramfs", init: &init, sample: false, free, tracer: &[] };
    match part {
        None | Some(Part::Tool(_)) => races::races(choice, terms),
        Some(Part::Ram) => ram::ram(&choice.tree, &choice.only, &choice.peer, choice.quick),
        Some(Part::Run) => one_program::run(choice.rounds, choice.quick),
        Some(Part::Copy) => copying::copying(choice.quick),
        Some(Part::Decoders) => decoders::decoders(&choice.tree, choice.rounds, choice.quick),
        Some(Part::Cold) => cold::cold(&choice.tree, choice.rounds, terms, choice.quick),
        Some(Part::Payload) => {
            payload_images::payload(&choice.tree, &choice.only, choice.rounds, choice.quick)
        }
        Some(Part::Calls) => {
            let tree = choice.trees()?.into_iter().next().context("no tree")?;
            let ours = |one: &Contender| one.name.starts_with("repot-") && one.moves();
            let contenders: Vec<Contender> = choice.contenders()?.into_iter().filter(ours).collect();
            calls::calls(&tree, &contenders, terms, choice.quick)
        }
    }
}

impl Choice {
    fn trees(&self) -> Result<Vec<Tree>> {
        if self.tree.is_empty() {
            return Ok(trees::all());
        }
        // The trees of the growth curve only if they are named.
        let trees: Vec<Tree> = trees::all().into_iter().chain(trees::growing(false)).collect();
        if let Some(name) = self.tree.iter().find(|name| trees.iter().all(|tree| tree.name != **name)) {
            let known: Vec<&str> = trees.iter().map(|tree| tree.name.as_str()).collect();
            bail!("unknown tree {name}; known: {}", known.join(", "));
        }
        Ok(trees.into_iter().filter(|tree| self.tree.contains(&tree.name)).collect())
    }

    fn is_peer(&self, contender: &Contender) -> bool {
        self.peer.iter().any(|peer| peer.name == contender.name)
    }

    fn contenders(&self) -> Result<Vec<Contender>> {
        contenders::chosen(contenders::all(&self.peer)?, &self.only)
    }
}
