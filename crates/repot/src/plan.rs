//! Decides what to do, from facts and options alone: no system call is made here.

mod limits;
mod payload;
mod truncated;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::facts::program::Candidate;
use crate::facts::{Facts, RootFs};
use crate::mover::data::CHUNK;
use crate::options::{Mode, Options};
pub use limits::Tmpfs;
use limits::{PLENTY, tmpfs};

/// How the root is re-homed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The tree moves to a tmpfs.
    Move,
    /// The payload is unpacked into a tmpfs, and whatever else the old root holds moves there too.
    Payload,
    /// The same file system is mounted once more, above itself.
    Bind,
    /// Nothing changes.
    Stay,
}

impl Method {
    /// As in `mode=`; or `payload`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Move => "move",
            Method::Payload => "payload",
            Method::Bind => "bind",
            Method::Stay => "stay",
        }
    }
}

/// What will be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// How.
    pub method: Method,
    /// Why, in a clause.
    pub reason: String,
    /// The options of the new tmpfs.
    pub tmpfs: Tmpfs,
    /// The number of threads that move the tree.
    pub threads: u32,
    /// Whether memory is so short that the move needs what the kernel holds in reserve.
    pub tight: bool,
    /// Whether to try large folios during the move.
    pub large_folios: bool,
    /// Whether each chunk of a payload must match its SHA-256: a digest of the index was requested, which
    /// covers these.
    pub by_digest: bool,
    /// The executable inits, best first. Of a payload, all candidates: it has to be unpacked before they can
    /// be tested.
    pub inits: Vec<Vec<u8>>,
    /// Whether contents are overwritten in the old root before they are freed.
    pub wipe: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Why nothing is done and no init is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// This is not PID 1: re-homing would take the running system apart.
    NotFirst,
    /// No init is executable: the candidates, and what else is wrong.
    NoInit(Vec<Candidate>, Vec<String>),
    /// The initramfs is truncated: what is missing, and how to fix it.
    Truncated(String, String),
    /// The payload cannot be used: why.
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

/// What an inode and its name take on tmpfs beyond what they took before, with slabs only partly filled; in
/// bytes.
const PER_ENTRY: u64 = 256;
/// What a move needs for threads, buffers and page tables; in bytes.
const BASE: u64 = 1 << 20;

/// Decides.
///
/// # Errors
/// A refusal: nothing is to be changed, and no init is executable or must be executed.
pub fn plan(facts: &Facts, options: &Options) -> Result<Plan, Refusal> {
    if !facts.first {
        return Err(Refusal::NotFirst);
    }
    let mut warnings = Vec::new();
    if facts.initial || options.mode == Mode::Move {
        check_whole(facts, options, &mut warnings)?;
    }
    if let Some(fit) = payload::decide(facts, options, &mut warnings).map_err(Refusal::Payload)? {
        return Ok(Plan {
            method: Method::Payload,
            reason: "the root is compressed in the image".to_string(),
            tmpfs: fit.tmpfs,
            threads: fit.threads,
            tight: fit.tight,
            large_folios: false,
            by_digest: !options.payload.is_empty(),
            inits: facts.candidates.iter().map(|candidate| candidate.path.clone()).collect(),
            wipe: options.wipe,
            warnings,
        });
    }
    let inits = executable(facts, &mut warnings)?;
    let (tmpfs, room) = tmpfs(facts, options);
    let available = facts.memory.available;
    let plenty = available >= facts.memory.total / 8 + PLENTY;
    let extra = |threads: u32| u64::from(threads) * 2 * CHUNK + facts.survey.entries * PER_ENTRY + BASE;
    let threads = options.threads.unwrap_or(facts.processors).clamp(1, 8);
    // The kernel keeps what a thread frees for that thread's CPU, where another thread cannot get it.
    let threads = if !plenty || available < extra(threads) { 1 } else { threads };
    let fits = room.and_then(|()| {
        let wanted = extra(threads);
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
    Ok(Plan {
        method,
        reason,
        tmpfs,
        threads,
        tight: !plenty,
        large_folios: plenty && large_folios(facts, options),
        by_digest: false,
        inits,
        wipe: options.wipe,
        warnings,
    })
}

/// Refuses a truncated initramfs, unless the user wants to boot it.
fn check_whole(facts: &Facts, options: &Options, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    match truncated::missing(facts) {
        Some(missing) if options.boot_truncated => {
            warnings.push(format!("initramfs truncated: {missing}; booting anyway (truncated=continue)"))
        }
        Some(missing) => return Err(Refusal::Truncated(missing, truncated::cures(facts))),
        // Healthy systems have these too, for instance because of padding behind the archive.
        None => warnings
            .extend(facts.unpacking.complaints.iter().map(|said| format!("the kernel logged \"{said}\""))),
    }
    Ok(())
}

/// The executable inits, with a warning for each candidate before the first of them.
fn executable(facts: &Facts, warnings: &mut Vec<String>) -> Result<Vec<Vec<u8>>, Refusal> {
    let able = facts.candidates.iter().filter(|candidate| candidate.why.is_none());
    let inits: Vec<_> = able.map(|candidate| candidate.path.clone()).collect();
    if inits.is_empty() {
        return Err(Refusal::NoInit(facts.candidates.clone(), core::mem::take(warnings)));
    }
    let skipped = facts.candidates.iter().take_while(|candidate| candidate.why.is_some());
    warnings.extend(skipped.map(|candidate| format!("init: {}; trying the next", candidate.account())));
    Ok(inits)
}

/// Whether large folios are worth a try, if there is memory to spare. Folios of the size of a write came with
/// 6.14; before, only whole huge pages existed. Large folios fill holes (from 6.17 on the kernel takes the
/// largest that fits into the file). What the user has chosen stays.
fn large_folios(facts: &Facts, options: &Options) -> bool {
    facts.kernel >= (6, 14)
        && facts.survey.sparse == 0
        && !options.huge_by_default
        && !options.tmpfs.iter().any(|(key, _)| key == "huge")
}

fn choose(facts: &Facts, options: &Options, fits: Result<(), String>) -> (Method, String) {
    let in_memory = !matches!(facts.rootfs, RootFs::Other(_));
    let asked = || "as configured".to_string();
    // A bind helps if pivot_root cannot leave the root; otherwise it would change nothing.
    let next_best = |why: String| if facts.absolute { (Method::Bind, why) } else { (Method::Stay, why) };
    match options.mode {
        Mode::Stay => (Method::Stay, asked()),
        Mode::Bind => (Method::Bind, asked()),
        Mode::Move if !in_memory => (Method::Stay, "/ is neither a ramfs nor a tmpfs".to_string()),
        Mode::Move => match fits {
            Ok(()) => (Method::Move, asked()),
            Err(why) => next_best(why),
        },
        Mode::Auto if !in_memory => (Method::Stay, "/ is neither a ramfs nor a tmpfs".to_string()),
        Mode::Auto if !facts.initial => (Method::Stay, "/ is not the initial root".to_string()),
        Mode::Auto if facts.others > 0 => {
            // Truncating the files that they have mapped would kill them.
            next_best(format!("{} other processes run from /", facts.others))
        }
        Mode::Auto => match fits {
            Ok(()) => {
                let kind = if facts.rootfs == RootFs::Ramfs { "ramfs" } else { "tmpfs" };
                (Method::Move, format!("/ is the initial {kind}"))
            }
            Err(why) => next_best(why),
        },
    }
}
