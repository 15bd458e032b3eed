//! Decides whether a payload can be unpacked, and into what tmpfs.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::limits::{PLENTY, Tmpfs, tmpfs};
use crate::display::Hex;
use crate::facts::packed::Found;
use crate::facts::{Facts, RootFs};
use crate::options::{Mode, Options};
use crate::payload::index::Index;
use crate::walk::survey::Survey;

/// What a thread needs, in bytes: a window of 1 MiB, buffers, the chunks it reads from, and what the kernel
/// keeps for its CPU.
const WORKER: u64 = 4 << 20;
/// What an inode and its name take on a tmpfs, in bytes.
const PER_INODE: u64 = 1024;
/// What unpacking may use beyond the memory that the kernel calls available, in bytes: its reserves, and
/// pages on the lists of its CPUs (`reserve` says how much of each).
const HELD_BACK: u64 = 16 << 20;

/// How a payload is unpacked.
pub(super) struct Fit {
    pub(super) tmpfs: Tmpfs,
    pub(super) threads: u32,
    pub(super) tight: bool,
}

/// Decides; `None` if the root is not a payload.
///
/// # Errors
/// Why a payload that was requested, or found, cannot be unpacked.
pub(super) fn decide(
    facts: &Facts,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<Option<Fit>, String> {
    // A root that was unpacked before, or that happens to have such a directory, is none.
    let in_memory = !matches!(facts.rootfs, RootFs::Other(_));
    if !in_memory || !(facts.initial || options.mode == Mode::Move) {
        return Ok(None);
    }
    let Some(index) = vouched(facts, options)? else { return Ok(None) };
    if matches!(options.mode, Mode::Bind | Mode::Stay) {
        let mode = if options.mode == Mode::Bind { "bind" } else { "stay" };
        warnings.push(format!("mode={mode} ignored: the root is a payload, which must be unpacked"));
    }
    if facts.others > 0 {
        warnings
            .push(format!("{} other processes run from the initramfs, which repot empties", facts.others));
    }
    fit(facts, options, index, warnings).map(Some)
}

/// The index, if it has every digest that was requested; `None` if there is no payload and none was
/// requested.
fn vouched<'f>(facts: &'f Facts, options: &Options) -> Result<Option<&'f Index>, String> {
    let (index, digest) = match &facts.payload {
        Found::None if options.payload.is_empty() => return Ok(None),
        Found::None => return Err("payload= is set, but the image has no payload".to_string()),
        Found::Useless(why) => return Err(why.clone()),
        Found::Index(index, digest) => (index, digest),
    };
    if options.unread {
        return Err(
            "the configuration could not be read, and it may require another payload (payload=)".to_string()
        );
    }
    for wanted in &options.payload {
        if *wanted != Some(*digest) {
            let wanted = match wanted {
                Some(wanted) => format!("sha256:{}", Hex(wanted)),
                None => "a malformed digest".to_string(),
            };
            return Err(format!("its index has sha256:{}, but payload= requires {wanted}", Hex(digest)));
        }
    }
    Ok(Some(index))
}

/// The tmpfs and the threads for the payload and whatever else the initramfs holds.
fn fit(facts: &Facts, options: &Options, index: &Index, warnings: &mut Vec<String>) -> Result<Fit, String> {
    let page = facts.page.max(1);
    // Pages of another size hold at most one page more for each inode.
    let payload = if page == 4096 {
        index.pages.saturating_mul(page)
    } else {
        index.bytes.saturating_add(index.inodes.saturating_mul(page))
    };
    let chunks: u64 = index.chunks.iter().map(|chunk| chunk.size.next_multiple_of(page)).sum();
    let (tmpfs, fits) = tmpfs(&unpacked(facts, index, payload, chunks), options);
    fits.map_err(|why| format!("the payload does not fit: {why}"))?;
    let available = facts.memory.available.saturating_add(chunks);
    // Only a payload that certainly does not fit is refused: there is nothing else to boot.
    let minimum = if page == 4096 { payload } else { index.bytes };
    if available.saturating_add(HELD_BACK) < minimum {
        return Err(format!(
            "the payload needs {} KiB of memory, but only {} KiB are available once its chunks are freed; \
             give the machine more memory",
            minimum >> 10,
            available >> 10
        ));
    }
    let need = |threads: u32| {
        let inodes = index.inodes.saturating_mul(PER_INODE);
        let directories = index.frames[0].size;
        payload.saturating_add(inodes).saturating_add(directories).saturating_add(u64::from(threads) * WORKER)
    };
    let mut threads = options.threads.unwrap_or(facts.processors).clamp(1, 8);
    if available < need(threads) {
        threads = 1;
    }
    let tight = available < need(threads).saturating_add(facts.memory.total / 8 + PLENTY);
    if available < need(threads) {
        warnings.push(format!(
            "unpacking needs about {} KiB of memory, but only {} KiB are available; trying anyway",
            need(threads) >> 10,
            available >> 10
        ));
    }
    Ok(Fit { tmpfs, threads, tight })
}

/// The facts as they would be if the payload were unpacked already. The directory of the chunks is no part of
/// the tree, and the index hardly counts.
fn unpacked(facts: &Facts, index: &Index, payload: u64, chunks: u64) -> Facts {
    let number = u64::try_from(index.chunks.len()).unwrap_or(u64::MAX);
    let others = &facts.survey;
    let mut whole = facts.clone();
    whole.survey = Survey {
        entries: index.entries.saturating_add(others.entries.saturating_sub(number)),
        bytes: payload.saturating_add(others.bytes.saturating_sub(chunks)),
        largest: index.largest.max(others.largest),
        ..*others
    };
    whole.capacity.free_inodes = whole.capacity.inodes;
    whole.manifest = whole.manifest.saturating_add(index.xattrs);
    whole
}
