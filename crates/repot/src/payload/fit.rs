//! Decides about a payload, from facts and options alone: what tmpfs it needs, and whether it can be unpacked at all.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Found;
use super::index::Hex;
use crate::facts::{Facts, RootFs};
use crate::options::{Mode, Options};
use crate::plan::{Method, PLENTY, Plan, Refusal, tmpfs};
use crate::survey::Survey;

/// What a thread needs: a window of 1 MiB, buffers, the chunks that it reads from, and what the kernel keeps for its processor.
const WORKER: u64 = 4 << 20;
/// What an inode and its name take on a tmpfs, in bytes.
const PER_INODE: u64 = 1024;
/// What may be had of the memory beyond what the kernel calls available: its reserves, and pages on the lists of its processors
/// (`reserve` tells how much of each).
const HELD_BACK: u64 = 16 << 20;

/// The plan where the root comes as a payload; `None` where it does not.
///
/// # Errors
/// A payload that is asked for and not there, that cannot be used, or that cannot fit.
pub(crate) fn decide(
    facts: &Facts,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<Option<Plan>, Refusal> {
    // After it was unpacked, or on a machine that has something of this name, there is nothing to do.
    let in_memory = !matches!(facts.rootfs, RootFs::Other(_));
    if !in_memory || !(facts.initial || options.mode == Mode::Move) {
        return Ok(None);
    }
    let refuse = |why: String| Err(Refusal::Payload(why));
    let (index, digest) = match &facts.payload {
        Found::None if options.payload.is_empty() => return Ok(None),
        Found::None => return refuse("one is asked for (payload=) and there is none".to_string()),
        Found::Useless(why) => return refuse(why.clone()),
        Found::Index(index, digest) => (index, digest),
    };
    if options.unread {
        return refuse("the configuration could not be read, and may ask for another".to_string());
    }
    for wanted in &options.payload {
        if *wanted != Some(*digest) {
            let wanted = match wanted {
                Some(wanted) => format!("sha256:{}", Hex(wanted)),
                None => "a digest that cannot be understood".to_string(),
            };
            return refuse(format!("its index has sha256:{}, and {wanted} is asked for", Hex(digest)));
        }
    }
    if matches!(options.mode, Mode::Bind | Mode::Stay) {
        let mode = if options.mode == Mode::Bind { "bind" } else { "stay" };
        warnings.push(format!("mode={mode} does not apply: the root is a payload, which has to be unpacked"));
    }
    if facts.others > 0 {
        warnings.push(format!("{} other processes run from the initramfs, which is emptied", facts.others));
    }
    let page = facts.page.max(1);
    // Pages of another size hold at most so much more for each inode.
    let payload = if page == 4096 {
        index.pages.saturating_mul(page)
    } else {
        index.bytes.saturating_add(index.inodes.saturating_mul(page))
    };
    let chunks: u64 = index.chunks.iter().map(|chunk| chunk.size.next_multiple_of(page)).sum();
    let number = u64::try_from(index.chunks.len()).unwrap_or(u64::MAX);
    // What the initramfs holds besides. The directory of the chunks is no part of it, and the index hardly counts.
    let others = &facts.survey;
    let mut whole = facts.clone();
    whole.survey = Survey {
        entries: index.entries.saturating_add(others.entries.saturating_sub(number)),
        bytes: payload.saturating_add(others.bytes.saturating_sub(chunks)),
        largest: index.largest.max(others.largest),
        ..*others
    };
    whole.room.free_inodes = whole.room.inodes;
    whole.manifest = whole.manifest.saturating_add(index.xattrs);
    let (tmpfs, fits) = tmpfs(&whole, options);
    if let Err(why) = fits {
        return refuse(format!("it does not fit: {why}"));
    }
    let available = facts.memory.available.saturating_add(chunks);
    // Only what is certain is refused: there is nothing else to boot.
    let least = if page == 4096 { payload } else { index.bytes };
    if available.saturating_add(HELD_BACK) < least {
        return refuse(format!(
            "it has {} KiB, and {} KiB of memory are available when its chunks are gone; the machine needs more memory",
            least >> 10,
            available >> 10
        ));
    }
    let need = |threads: u32| {
        let inodes = index.inodes.saturating_mul(PER_INODE);
        let directories = index.frames[0].size;
        payload.saturating_add(inodes).saturating_add(directories).saturating_add(u64::from(threads) * WORKER)
    };
    let mut threads = options.threads.unwrap_or(facts.processors).clamp(1, 8);
    while threads > 1 && available < need(threads) {
        threads = 1;
    }
    let tight = available < need(threads).saturating_add(facts.memory.total / 8 + PLENTY);
    if available < need(threads) {
        warnings.push(format!(
            "unpacking needs about {} KiB of memory and {} KiB are available",
            need(threads) >> 10,
            available >> 10
        ));
    }
    Ok(Some(Plan {
        method: Method::Payload,
        reason: "the root comes compressed".to_string(),
        tmpfs,
        threads,
        tight,
        large_folios: false,
        by_digest: !options.payload.is_empty(),
        // Which of them can be executed shows when they are unpacked.
        inits: facts.candidates.iter().map(|candidate| candidate.path.clone()).collect(),
        wipe: options.wipe,
        warnings: Vec::new(),
    }))
}
