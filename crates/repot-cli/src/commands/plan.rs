//! `repot plan`: explains whether `pivot_root` works on this machine, and what repot would do as its `/init`.
//!
//! The library inspects the system and makes the plan; nothing is changed. Anyone can read the mounts, but
//! only root can inspect the tree.

use std::fs;

use anyhow::{Context, Result};
use repot::facts::mountinfo::{self, Mount};
use repot::facts::{self, Facts, RootFs};
use repot::plan::{Plan, plan};
use repot::site::Site;
use rustix::io::Errno;
use serde::Serialize;

use crate::cli::PlanArgs;
use crate::report::{Format, Summary, finish, row, size, table};

#[derive(Debug, Serialize)]
struct Account {
    root: Root,
    pivot_root: Verdict,
    /// Needs root.
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
    finish(Format { json: args.json, stdout_taken: false }, &account()?)
}

fn account() -> Result<Account> {
    let mounts =
        mountinfo::parse(&fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?);
    // The last of several mounts at `/` hides the others.
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
        account.refusal = Some("only root can inspect the tree and make a plan: run this with sudo".into());
        return Ok(account);
    }
    let site = match Site::open() {
        // In a container, root may not mount.
        Err(error) if error.fault.errno == Errno::PERM => {
            account.refusal = Some(
                "inspecting the tree needs CAP_SYS_ADMIN, which this root does not have: run this outside \
                      of the container"
                    .into(),
            );
            return Ok(account);
        }
        site => site?,
    };
    let options = facts::options(&site);
    let mut facts = facts::look(&site, &options)?;
    // repot would refuse to run as anything but PID 1.
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
        (false, "the root mount has no parent, and the kernel cannot move it (EINVAL)")
    } else if root.fstype == b"rootfs" {
        (true, "the root mount is the initial file system, bound over itself")
    } else if root.group != 0 {
        (
            false,
            "the root mount is shared (EINVAL), unless the caller makes it private first, as container runtimes do",
        )
    } else {
        (true, "the root mount has a parent")
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

impl Summary for Account {
    fn text(&self) -> String {
        let works = if self.pivot_root.works { "works here" } else { "fails here" };
        let mut rows = vec![
            row("root", format!("{}, {} mounts in this namespace", self.root.filesystem, self.root.mounts)),
            row("pivot_root", format!("{works}: {}", self.pivot_root.why)),
        ];
        rows.extend(self.tree.iter().flat_map(Tree::rows));
        rows.extend(self.plan.iter().flat_map(Decision::rows));
        rows.extend(self.refusal.iter().map(|refusal| row("no plan", refusal.clone())));
        table(&rows)
    }

    fn warnings(&self) -> &[String] {
        self.plan.as_ref().map_or(&[], |plan| &plan.warnings)
    }
}

impl Tree {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        if self.entries > 0 {
            let (bytes, largest) = (size::human(self.bytes), size::human(self.largest));
            rows.push(row("tree", format!("{} entries, {bytes}, largest file {largest}", self.entries)));
        }
        let (available, memory) = (size::human(self.available), size::human(self.memory));
        rows.push(row("memory", format!("{available} of {memory} available")));
        rows.extend(self.inits.iter().map(|init| row("init", init.clone())));
        rows
    }
}

impl Decision {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![row("repot would", format!("{}: {}", self.method, self.reason))];
        if self.method == "move" {
            let or_default = |value: &Option<String>| value.clone().unwrap_or("the kernel's default".into());
            let (size, inodes) = (or_default(&self.size), or_default(&self.nr_inodes));
            let threads = self.threads;
            rows.push(row("new root", format!("tmpfs, size {size}, nr_inodes {inodes}; {threads} threads")));
        }
        rows.push(row("then run", self.init.clone()));
        rows
    }
}

/// The name of a root file system for messages.
#[must_use]
pub(crate) fn name(rootfs: RootFs) -> &'static str {
    match rootfs {
        RootFs::Ramfs => "ramfs",
        RootFs::Tmpfs => "tmpfs",
        RootFs::Other(_) => "a file system that is not in memory",
    }
}
