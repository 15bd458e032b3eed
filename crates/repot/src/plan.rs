//! Decides what to do, from facts and options alone: no call is made here.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::facts::{Facts, RootFs};
use crate::mover::CHUNK;
use crate::options::{Amount, Mode, Options};
use crate::payload::fit;
use crate::program::Candidate;
use crate::unpacking::{cures, missing};

/// How the root is re-homed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The tree moves to a tmpfs.
    Move,
    /// The tree is unpacked into a tmpfs.
    Payload,
    /// The same file system is mounted once more.
    Bind,
    /// Nothing.
    Stay,
}

impl Method {
    /// As in `mode=`, and `payload`.
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
pub struct Plan {
    /// How.
    pub method: Method,
    /// Why, in a clause.
    pub reason: String,
    /// The options of the new tmpfs.
    pub tmpfs: Tmpfs,
    /// How many threads move the tree.
    pub threads: u32,
    /// Whether memory is so short that what the kernel holds back of it is needed.
    pub tight: bool,
    /// Whether large folios are tried during the move.
    pub large_folios: bool,
    /// Whether the chunks of a payload must have their SHA-256: a digest of the index is asked for, which vouches for these.
    pub by_digest: bool,
    /// The programs that can be executed as init, best first.
    pub inits: Vec<Vec<u8>>,
    /// Whether contents are overwritten in the old root before they are freed.
    pub wipe: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The options of the new tmpfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tmpfs {
    /// `size=`; `None` for the kernel's default of half the memory.
    pub size: Option<String>,
    /// `nr_inodes=`; `None` for the kernel's default.
    pub nr_inodes: Option<String>,
    /// Those that may be refused.
    pub more: Vec<(String, Option<String>)>,
}

/// Why nothing can be done at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This is not process 1: re-homing would take the running system apart.
    NotFirst,
    /// There is nothing to execute afterwards: what was tried, and what else is wrong.
    NoInit(Vec<Candidate>, Vec<String>),
    /// The initramfs was not unpacked whole: what is missing, and what helps.
    Truncated(String, String),
    /// The root comes as a payload that cannot be used: why.
    Payload(String),
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Refusal::NotFirst => f.write_str(
                "this is not process 1; repot is the /init of an initramfs and does nothing elsewhere",
            ),
            Refusal::NoInit(tried, warnings) => {
                f.write_str("no init can be executed")?;
                tried.iter().try_for_each(|candidate| write!(f, "; {}", candidate.account()))?;
                warnings.iter().try_for_each(|warning| write!(f, "; {warning}"))
            }
            Refusal::Payload(why) => write!(f, "the payload is not unpacked, and nothing was touched: {why}"),
            Refusal::Truncated(missing, cures) => {
                write!(
                    f,
                    "the initramfs was not unpacked whole, and half a system is not booted: {missing}. {cures}"
                )
            }
        }
    }
}

/// What an inode and its name take on tmpfs beyond what the same took before, with room for slabs that are not full, in bytes.
const PER_ENTRY: u64 = 256;
/// What a move needs besides, in bytes: threads, buffers, page tables.
const BASE: u64 = 1 << 20;

/// Memory that must be available for several threads and large folios, in bytes, besides an eighth of all: that much of what the move
/// frees in single pages the kernel may keep for single pages on the processor that freed them (`pcp->high_max`, since 6.7). In a
/// machine of 296 MiB that was 23 MiB, and the end of it.
pub(crate) const PLENTY: u64 = 64 << 20;

/// Decides.
///
/// # Errors
/// A refusal: nothing is to be done, and nothing can be executed or must be.
pub fn plan(facts: &Facts, options: &Options) -> Result<Plan, Refusal> {
    if !facts.first {
        return Err(Refusal::NotFirst);
    }
    let mut warnings = Vec::new();
    if facts.initial || options.mode == Mode::Move {
        match missing(facts) {
            Some(missing) if options.boot_truncated => {
                warnings.push(format!(
                    "the initramfs was not unpacked whole: {missing}; going on (truncated=continue)"
                ));
            }
            Some(missing) => return Err(Refusal::Truncated(missing, cures(facts))),
            // Healthy systems have these too, for instance with padding behind the archive.
            None => warnings
                .extend(facts.unpacking.complaints.iter().map(|said| format!("the kernel said \"{said}\""))),
        }
    }
    if let Some(plan) = fit::decide(facts, options, &mut warnings)? {
        return Ok(Plan { warnings, ..plan });
    }
    let inits: Vec<_> =
        facts.candidates.iter().filter(|candidate| candidate.why.is_none()).map(|c| c.path.clone()).collect();
    if inits.is_empty() {
        return Err(Refusal::NoInit(facts.candidates.clone(), warnings));
    }
    let skipped = facts.candidates.iter().take_while(|candidate| candidate.why.is_some());
    warnings.extend(skipped.map(|candidate| format!("init: {}; trying the next", candidate.account())));
    let (tmpfs, room) = tmpfs(facts, options);
    let threads = options.threads.unwrap_or(facts.processors).clamp(1, 8);
    let extra = |threads: u32| u64::from(threads) * 2 * CHUNK + facts.survey.entries * PER_ENTRY + BASE;
    // What one thread has freed the kernel keeps for its processor, and another's cannot have it.
    let plenty = facts.memory.available >= facts.memory.total / 8 + PLENTY;
    let threads = if !plenty || facts.memory.available < extra(threads) { 1 } else { threads };
    let fits = room.and_then(|()| {
        let wanted = extra(threads);
        if facts.memory.available >= wanted {
            return Ok(());
        }
        let available = facts.memory.available >> 10;
        Err(format!("moving needs {} KiB of memory and {available} KiB are available", wanted >> 10))
    });
    let (method, reason) = choose(facts, options, fits);
    // Folios of the size of what is written came with 6.14; before, only whole huge pages were to be had. They fill holes (6.17 on
    // takes the largest that fits into the file), must be no strain on memory, and a choice of the user's is left alone.
    let large_folios = facts.kernel >= (6, 14)
        && facts.survey.sparse == 0
        && plenty
        && !options.huge_by_default
        && !options.tmpfs.iter().any(|(key, _)| key == "huge");
    Ok(Plan {
        method,
        reason,
        tmpfs,
        threads,
        tight: !plenty,
        large_folios,
        by_digest: false,
        inits,
        wipe: options.wipe,
        warnings,
    })
}

fn choose(facts: &Facts, options: &Options, fits: Result<(), String>) -> (Method, String) {
    let in_memory = !matches!(facts.rootfs, RootFs::Other(_));
    let asked = || "as configured".to_string();
    // Where the root cannot be left by pivot_root a bind still helps; elsewhere it would change nothing.
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
            next_best(format!("{} other processes run from it", facts.others))
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

/// The options of a tmpfs that the tree fits in, and whether it does fit in what was asked for.
pub(crate) fn tmpfs(facts: &Facts, options: &Options) -> (Tmpfs, Result<(), String>) {
    let survey = &facts.survey;
    let total = facts.memory.total;
    let bytes = survey.bytes + survey.long_symlinks * facts.page;
    // Each name counts, and so does the further one that each inode with several names has during the move. What a tmpfs
    // says of itself includes the attributes that it charges as inodes.
    let counted = survey.entries + 1;
    let used = facts.room.inodes - facts.room.free_inodes.min(facts.room.inodes);
    let inodes = counted.max(used) + survey.hard_links / 2 + facts.manifest / 1024 + 16;
    let mut tmpfs = Tmpfs { more: options.tmpfs.clone(), ..Tmpfs::default() };
    let mut fits = Ok(());
    let wanted = bytes + total / 10;
    match options.size {
        None if wanted <= total / 2 => {}
        None => tmpfs.size = Some(format!("{wanted}")),
        Some(size) => {
            let (text, limit) = match size {
                Amount::Exactly(limit) => (format!("{limit}"), limit),
                // In two steps, for a percentage of any size.
                Amount::Percent(percent) => {
                    (format!("{percent}%"), (total / 100).saturating_mul(percent).max(1))
                }
            };
            tmpfs.size = Some(text);
            if limit != 0 && limit < bytes {
                fits = Err(format!("size={} is less than the {} KiB of the tree", limit, bytes >> 10));
            }
        }
    }
    let default = total / facts.page.max(1) / 2;
    let wanted = inodes + inodes / 10;
    match options.nr_inodes {
        None if wanted <= default => {}
        None => tmpfs.nr_inodes = Some(format!("{wanted}")),
        Some(Amount::Exactly(limit) | Amount::Percent(limit)) => {
            tmpfs.nr_inodes = Some(format!("{limit}"));
            if limit != 0 && limit < inodes && fits.is_ok() {
                fits = Err(format!("nr_inodes={limit} is less than the {inodes} that the move needs"));
            }
        }
    }
    (tmpfs, fits)
}
