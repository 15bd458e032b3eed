//! Decides what to do, from facts and options alone. No system call is made here.

mod limits;
pub(crate) mod mounts;
mod payload;
mod swap;
mod truncated;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::facts::program::Candidate;
use crate::facts::{Facts, RootFs};
use crate::mover::data::CHUNK;
use crate::options::{Mode, Options, Owner, Zram};
use crate::zram::Wanted;
pub use limits::Tmpfs;
use limits::{PLENTY, bound, tmpfs};

/// How the root is re-homed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The tree moves to a new tmpfs.
    Move,
    /// The payload is unpacked into a tmpfs, and the rest of the old root moves there too.
    Payload,
    /// The same file system is bind-mounted above itself.
    Bind,
    /// Nothing changes.
    Stay,
}

impl Method {
    /// The name in `mode=`, or `payload`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Move => "move",
            Method::Payload => "payload",
            Method::Bind => "bind",
            Method::Stay => "stay",
        }
    }
}

/// The decision: what to do, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The method.
    pub method: Method,
    /// The reason, as a clause for the log.
    pub reason: String,
    /// The options of the new tmpfs.
    pub tmpfs: Tmpfs,
    /// The limits to set on the old root if it is bound.
    pub bound: Tmpfs,
    /// Owner and mode of the new root directory.
    pub owner: Owner,
    /// The number of threads that move the tree.
    pub threads: u32,
    /// Whether memory is so short that the move needs the kernel's own reserves.
    pub tight: bool,
    /// Whether to try large folios during the move.
    pub large_folios: bool,
    /// Whether to verify the SHA-256 of each chunk, because `payload=` requests a digest.
    pub by_digest: bool,
    /// The executable inits, best first. For a payload, all candidates: they can be tested only after
    /// unpacking.
    pub inits: Vec<Vec<u8>>,
    /// Whether to overwrite contents in the old root before they are freed.
    pub wipe: bool,
    /// Whether to move although other processes use the root.
    pub beside: bool,
    /// The swap in compressed memory to make first, if any.
    pub zram: Option<Wanted>,
    /// Warnings for the log.
    pub warnings: Vec<String>,
}

/// Why nothing is done and no init may be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// This is not PID 1: re-homing would take the running system apart.
    NotFirst,
    /// No init is executable: the candidates, and further warnings.
    NoInit(Vec<Candidate>, Vec<String>),
    /// The initramfs is truncated: what is missing, and how to fix it.
    Truncated(String, String),
    /// The payload cannot be unpacked: why.
    Payload(String),
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Refusal::NotFirst => f.write_str(
                "not running as PID 1; repot is the /init of an initramfs and does nothing elsewhere",
            ),
            Refusal::NoInit(tried, warnings) => {
                f.write_str("no init is executable")?;
                tried.iter().try_for_each(|candidate| write!(f, "; {}", candidate.account()))?;
                warnings.iter().try_for_each(|warning| write!(f, "; {warning}"))
            }
            Refusal::Payload(why) => write!(f, "payload refused, nothing was changed: {why}"),
            Refusal::Truncated(missing, cures) => {
                write!(f, "initramfs truncated, refusing to boot half a system: {missing}. {cures}")
            }
        }
    }
}

impl core::error::Error for Refusal {}

/// Extra memory per entry on tmpfs compared with the old root, with partly filled slabs, in bytes.
const PER_ENTRY: u64 = 256;
/// The maximum number of open descriptors of a move. A rollback needs them too, so a move does not start
/// without them.
const DESCRIPTORS: u64 = 256;
/// Extra memory for threads, buffers and page tables, in bytes.
const BASE: u64 = 1 << 20;

impl Plan {
    /// Leaves the root alone, and executes the first of `inits` that works.
    pub(crate) fn stay(reason: String, inits: Vec<Vec<u8>>) -> Plan {
        Plan {
            method: Method::Stay,
            reason,
            tmpfs: Tmpfs::default(),
            bound: Tmpfs::default(),
            owner: Owner::default(),
            threads: 1,
            tight: false,
            large_folios: false,
            by_digest: false,
            inits,
            wipe: false,
            beside: false,
            zram: None,
            warnings: Vec::new(),
        }
    }
}

/// Makes the plan.
///
/// # Errors
/// A refusal: nothing may change, and no init may be executed.
pub fn plan(facts: &Facts, options: &Options) -> Result<Plan, Refusal> {
    if !facts.first {
        return Err(Refusal::NotFirst);
    }
    let mut warnings = Vec::new();
    if facts.initial || options.mode == Mode::Move {
        check_truncated(facts, options, &mut warnings)?;
    }
    if let Some(fit) = payload::decide(facts, options, &mut warnings).map_err(Refusal::Payload)? {
        return Ok(Plan {
            method: Method::Payload,
            reason: "the root is compressed in the image".to_string(),
            tmpfs: fit.tmpfs,
            bound: Tmpfs::default(),
            owner: options.owner,
            threads: fit.threads,
            tight: fit.tight,
            large_folios: false,
            by_digest: !options.payload.is_empty(),
            inits: facts.candidates.iter().map(|candidate| candidate.path.clone()).collect(),
            wipe: options.wipe,
            beside: true,
            zram: fit.zram,
            warnings,
        });
    }
    let inits = executable(&facts.candidates, &mut warnings);
    if inits.is_empty() {
        return Err(Refusal::NoInit(facts.candidates.clone(), warnings));
    }
    let (tmpfs, room) = tmpfs(facts, options);
    let available = facts.memory.available;
    let plenty = available >= facts.memory.total / 8 + PLENTY;
    // Beside other processes no file is truncated, so each is in memory twice while it moves.
    let whole = if ignores_others(options) { facts.survey.largest.min(facts.survey.bytes) } else { 0 };
    let extra = |threads: u32| {
        let copied = u64::from(threads).saturating_mul(2 * CHUNK + whole);
        copied + facts.survey.entries * PER_ENTRY + BASE + facts.programs
    };
    let threads = options.threads.unwrap_or(facts.cpus).clamp(1, 8);
    // The kernel keeps pages that a thread frees on that thread's CPU, where other threads cannot get them.
    let threads = if !plenty || available < extra(threads) { 1 } else { threads };
    let short = available < extra(1).saturating_add(swap::SYSTEM);
    let zram = swap::wanted(facts, options, short, facts.survey.bytes, &mut warnings);
    let fits = room.and_then(|()| {
        let wanted = match &zram {
            // What has arrived is paged out.
            Some(zram) if swap::pages_out(options) => 2 * CHUNK + BASE + swap::overhead(zram, facts.page),
            _ => extra(threads),
        };
        if available >= wanted {
            return Ok(());
        }
        Err(format!(
            "the move needs {} KiB of memory, but only {} KiB are available",
            wanted >> 10,
            available >> 10
        ))
    });
    let (method, reason) = choose(facts, options, fits);
    let (bound, skipped) = bound(facts, options);
    if method == Method::Bind {
        warnings.extend(skipped);
    }
    let zram = zram.filter(|_| method == Method::Move || options.zram != Zram::Auto);
    Ok(Plan {
        method,
        reason,
        tmpfs,
        bound,
        owner: options.owner,
        threads,
        tight: !plenty,
        large_folios: plenty && large_folios(facts, options),
        by_digest: false,
        inits,
        wipe: options.wipe,
        beside: ignores_others(options),
        zram,
        warnings,
    })
}

/// Refuses a truncated initramfs, unless `truncated=continue` is set.
fn check_truncated(facts: &Facts, options: &Options, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    match truncated::missing(facts) {
        Some(missing) if options.boot_truncated => {
            warnings.push(format!("initramfs truncated: {missing}; booting anyway (truncated=continue)"))
        }
        Some(missing) => return Err(Refusal::Truncated(missing, truncated::cures(facts))),
        // Working systems log these too, for example because of padding behind the archive.
        None => warnings
            .extend(facts.unpacking.complaints.iter().map(|line| format!("the kernel logged \"{line}\""))),
    }
    Ok(())
}

/// The executable inits, with a warning for each candidate before the first of them.
pub(crate) fn executable(candidates: &[Candidate], warnings: &mut Vec<String>) -> Vec<Vec<u8>> {
    let may_run = candidates.iter().filter(|candidate| candidate.may_run());
    let inits: Vec<_> = may_run.map(|candidate| candidate.path.clone()).collect();
    if inits.is_empty() {
        return inits;
    }
    let skipped = candidates.iter().take_while(|candidate| candidate.why.is_some());
    warnings.extend(skipped.map(|candidate| {
        let next = if candidate.may_run() { "trying it anyway" } else { "trying the next" };
        format!("init: {}; {next}", candidate.account())
    }));
    inits
}

/// Whether to try large folios. Folios of the size of a write came with 6.14; before, tmpfs had only huge
/// pages. Large folios fill holes (from 6.17 on the kernel takes the largest that fits in the file), so
/// sparse files rule them out. A `huge=` set by the user stays.
fn large_folios(facts: &Facts, options: &Options) -> bool {
    facts.kernel >= (6, 14)
        && facts.survey.sparse == 0
        && !options.huge_by_default
        && !options.tmpfs.iter().any(|(key, _)| key == "huge")
}

/// The method, and the reason for it.
fn choose(facts: &Facts, options: &Options, fits: Result<(), String>) -> (Method, String) {
    let in_memory = !matches!(facts.rootfs, RootFs::Other(_));
    let as_configured = || "as configured".to_string();
    if let Some(unseen) = facts.unseen.as_ref().filter(|_| facts.root_mount == 0 || !in_memory) {
        // Without the mounts, a bind mount would lose what is mounted on the root.
        return (Method::Stay, unseen.clone());
    }
    match options.mode {
        Mode::Stay => return (Method::Stay, as_configured()),
        Mode::Bind => return (Method::Bind, as_configured()),
        Mode::Move | Mode::Auto if !in_memory => {
            return (Method::Stay, "/ is neither a ramfs nor a tmpfs".to_string());
        }
        Mode::Move if facts.root_mount == 0 => {
            return (Method::Stay, "/ is not the root of a mount, but a directory in one".to_string());
        }
        Mode::Auto if !facts.initial => return (Method::Stay, "/ is not the initial root".to_string()),
        Mode::Move | Mode::Auto => {}
    }
    match check_unused(facts, options).and(fits) {
        Ok(()) if options.mode == Mode::Move => (Method::Move, as_configured()),
        Ok(()) => {
            let kind = if facts.rootfs == RootFs::Ramfs { "ramfs" } else { "tmpfs" };
            (Method::Move, format!("/ is the initial {kind}"))
        }
        // A bind mount helps if pivot_root cannot leave the root. Otherwise it changes nothing. The kernel
        // moves no mount of a directory or file that was removed (`get_mountpoint`), so with one nothing can
        // be carried.
        Err(why) if facts.parentless && facts.lost.is_empty() => (Method::Bind, why),
        Err(why) => (Method::Stay, why),
    }
}

/// Says who else uses the root, if anybody does. Truncating files that other processes have mapped would kill
/// these (SIGBUS), and what is mounted from the old root would lose its files.
fn check_unused(facts: &Facts, options: &Options) -> Result<(), String> {
    let Facts { others, descriptors, unseen, .. } = facts;
    if let Some(unseen) = unseen {
        return Err(unseen.clone());
    }
    if *descriptors < DESCRIPTORS {
        return Err(format!(
            "the move needs {DESCRIPTORS} descriptors, but only {descriptors} may be open (ulimit -Hn)"
        ));
    }
    let mut uses = facts.dependents.clone();
    uses.extend(mounts::obstacles(facts));
    if !uses.is_empty() {
        return Err(format!("/ is in use: {}", uses.join("; ")));
    }
    if others.is_empty() || ignores_others(options) {
        return Ok(());
    }
    Err(run_from(others, "/"))
}

/// Whether the user wants the root moved beside other processes.
fn ignores_others(options: &Options) -> bool {
    options.ignore_others && options.mode == Mode::Move
}

/// That these processes run from `place`.
fn run_from(others: &[String], place: &str) -> String {
    let run = match others.len() {
        1 => String::from("another process runs"),
        number => format!("{number} other processes run"),
    };
    format!("{run} from {place}: {}", list(others))
}

/// The first eight, and the number of the rest.
fn list(names: &[String]) -> String {
    let shown = names.get(..8).unwrap_or(names);
    match names.len() - shown.len() {
        0 => shown.join(" "),
        more => format!("{} and {more} more", shown.join(" ")),
    }
}
