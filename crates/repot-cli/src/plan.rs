//! `repot plan`: why `pivot_root` works or fails on this machine, and what repot would do if it were its
//! `/init`.
//!
//! The library looks and decides; nothing is changed. Looking at the tree needs root, the mounts can be seen
//! by anyone.

use std::fs;
use std::io::{self, Write};

use anyhow::{Context, Result};
use repot::facts::mountinfo::{self, Mount};
use repot::facts::{self, Facts, RootFs};
use repot::plan::{Plan, plan};
use repot::site::Site;
use serde::Serialize;

use crate::cli::PlanArgs;
use crate::{report, size};

#[derive(Debug, Serialize)]
struct Account {
    root: Root,
    pivot_root: Verdict,
    /// Absent without the rights to look.
    tree: Option<Tree>,
    plan: Option<Decision>,
    /// Why there is no plan.
    refusal: Option<String>,
}

#[derive(Debug, Serialize)]
struct Root {
    filesystem: String,
    initial: bool,
    mounts: usize,
}

#[derive(Debug, Serialize)]
struct Verdict {
    works: bool,
    why: String,
}

#[derive(Debug, Serialize)]
struct Tree {
    entries: u64,
    bytes: u64,
    largest: u64,
    memory: u64,
    available: u64,
    inits: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Decision {
    method: &'static str,
    reason: String,
    size: Option<String>,
    nr_inodes: Option<String>,
    threads: u32,
    init: String,
    warnings: Vec<String>,
}

/// Runs the command.
pub fn run(args: &PlanArgs) -> Result<()> {
    let account = account()?;
    let text = if args.json { serde_json::to_string_pretty(&account)? + "\n" } else { words(&account) };
    io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}

fn account() -> Result<Account> {
    let mounts =
        mountinfo::parse(&fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?);
    // Of several mounts on one place the last is the one that is seen.
    let root = mounts.iter().rfind(|mount| mount.point == b"/").cloned().unwrap_or_default();
    let mut account = Account {
        pivot_root: verdict(&root),
        root: Root {
            filesystem: String::from_utf8_lossy(&root.fstype).into_owned(),
            initial: root.fstype == b"rootfs",
            mounts: mounts.len(),
        },
        tree: None,
        plan: None,
        refusal: None,
    };
    if !rustix::process::geteuid().is_root() {
        account.refusal = Some("only root may look at the tree and make a plan".into());
        return Ok(account);
    }
    let site = Site::open()?;
    let options = facts::options(&site);
    let mut facts = facts::look(&site, &options)?;
    // The question is what would happen, not whether this program is to do it.
    facts.first = true;
    account.tree = Some(tree(&facts));
    match plan(&facts, &options) {
        Ok(plan) => account.plan = Some(decision(plan, options.warnings)),
        Err(refusal) => account.refusal = Some(refusal.to_string()),
    }
    Ok(account)
}

/// The conditions of `path_pivot_root()` in fs/namespace.c that concern the old root.
fn verdict(root: &Mount) -> Verdict {
    let (works, why) = if root.id == root.parent {
        (
            false,
            "the root mount is on no other: it is the first of all, which cannot be put elsewhere (EINVAL)",
        )
    } else if root.fstype == b"rootfs" {
        (true, "the root mount is the initial file system, mounted once more above itself")
    } else if root.shared {
        (
            false,
            "the root mount is shared: runtimes make it private first, in a mount namespace of their own (EINVAL else)",
        )
    } else {
        (true, "the root mount is an ordinary one on top of another")
    };
    Verdict { works, why: why.into() }
}

fn tree(facts: &Facts) -> Tree {
    Tree {
        entries: facts.survey.entries,
        bytes: facts.survey.bytes,
        largest: facts.survey.largest,
        memory: facts.memory.total,
        available: facts.memory.available,
        inits: facts.candidates.iter().map(repot::facts::program::Candidate::account).collect(),
    }
}

fn decision(plan: Plan, said: Vec<String>) -> Decision {
    let init = plan.inits.first().map(|init| init.escape_ascii().to_string());
    Decision {
        method: plan.method.name(),
        reason: plan.reason,
        size: plan.tmpfs.size,
        nr_inodes: plan.tmpfs.nr_inodes,
        threads: plan.threads,
        init: init.unwrap_or_default(),
        warnings: said.into_iter().chain(plan.warnings).collect(),
    }
}

fn words(account: &Account) -> String {
    let row = |name: &str, value: String| (name.to_string(), value);
    let works = if account.pivot_root.works { "works here" } else { "fails here" };
    let mut rows = vec![
        row("root", format!("{}, {} mounts in this namespace", account.root.filesystem, account.root.mounts)),
        row("pivot_root", format!("{works}: {}", account.pivot_root.why)),
    ];
    if let Some(tree) = &account.tree {
        if tree.entries > 0 {
            let (bytes, largest) = (size::human(tree.bytes), size::human(tree.largest));
            rows.push(row("tree", format!("{} entries, {bytes}, the largest file {largest}", tree.entries)));
        }
        let (available, memory) = (size::human(tree.available), size::human(tree.memory));
        rows.push(row("memory", format!("{available} of {memory} available")));
        rows.extend(tree.inits.iter().map(|init| row("init", init.clone())));
    }
    if let Some(plan) = &account.plan {
        let or_default =
            |value: &Option<String>| value.clone().unwrap_or_else(|| "the kernel's default".into());
        rows.push(row("repot would", format!("{}: {}", plan.method, plan.reason)));
        if plan.method == "move" {
            let (size, inodes) = (or_default(&plan.size), or_default(&plan.nr_inodes));
            rows.push(row(
                "new root",
                format!("tmpfs, size {size}, nr_inodes {inodes}; {} threads", plan.threads),
            ));
        }
        rows.push(row("and then run", plan.init.clone()));
    }
    if let Some(refusal) = &account.refusal {
        rows.push(row("no plan", refusal.clone()));
    }
    let mut text = report::table(&rows);
    for warning in account.plan.iter().flat_map(|plan| &plan.warnings) {
        text += &format!("warning: {warning}\n");
    }
    text
}

/// For messages about a root file system.
#[must_use]
pub(crate) fn name(rootfs: RootFs) -> &'static str {
    match rootfs {
        RootFs::Ramfs => "ramfs",
        RootFs::Tmpfs => "tmpfs",
        RootFs::Other(_) => "a file system that is not in memory",
    }
}
