//! Decides whether a payload can be unpacked, and into which tmpfs.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::limits::{PLENTY, Tmpfs, tmpfs};
use super::swap;
use crate::display::Hex;
use crate::facts::packed::Found;
use crate::facts::{Facts, RootFs};
use crate::options::{Mode, Options, Zram};
use crate::payload::index::Index;
use crate::walk::survey::Survey;
use crate::zram::{self, Wanted};

/// Memory per worker, in bytes: a window of 1 MiB, buffers, the chunks that it reads, and pages that the
/// kernel keeps on its CPU.
const WORKER: u64 = 4 << 20;
/// Memory of an inode and its name on a tmpfs, in bytes.
const PER_INODE: u64 = 1024;
/// Memory that unpacking may use beyond what the kernel reports as available, in bytes: its reserves and
/// per-CPU page lists (see `reserve`).
const HELD_BACK: u64 = 16 << 20;

/// The parts of a plan that depend on the payload.
pub(super) struct Fit {
    pub(super) tmpfs: Tmpfs,
    pub(super) threads: u32,
    pub(super) tight: bool,
    pub(super) zram: Option<Wanted>,
}

/// Decides; `None` if the root is not a payload.
///
/// # Errors
/// Why a payload cannot be unpacked, or why a requested one is missing.
pub(super) fn decide(
    facts: &Facts,
    options: &Options,
    warnings: &mut Vec<String>,
) -> Result<Option<Fit>, String> {
    // A directory of that name is no payload on a root that was re-homed before, or on a disk.
    let in_memory = !matches!(facts.rootfs, RootFs::Other(_));
    if !in_memory || !(facts.initial || options.mode == Mode::Move) {
        return Ok(None);
    }
    let Some(index) = verified_index(facts, options)? else { return Ok(None) };
    if matches!(options.mode, Mode::Bind | Mode::Stay) {
        let mode = if options.mode == Mode::Bind { "bind" } else { "stay" };
        warnings.push(format!("mode={mode} ignored: the root is a payload, which must be unpacked"));
    }
    let mut uses = facts.dependents.clone();
    uses.extend(super::mounts::binds(facts));
    if !uses.is_empty() {
        return Err(format!("the initramfs is in use: {}", uses.join("; ")));
    }
    if !facts.others.is_empty() {
        warnings.push(super::run_from(&facts.others, "the initramfs, which repot empties"));
    }
    fit(facts, options, index, warnings).map(Some)
}

/// The index, if it matches every requested digest; `None` if there is no payload and none was requested.
fn verified_index<'f>(facts: &'f Facts, options: &Options) -> Result<Option<&'f Index>, String> {
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
    if options.payload.is_empty() {
        return Ok(Some(index));
    }
    if !options.uncovered.is_empty() {
        return Err(format!(
            "payload= on the command line does not cover what /etc/repot.conf sets: {}",
            options.uncovered.join("; ")
        ));
    }
    if !facts.outside.is_empty() {
        return Err(format!(
            "payload= does not cover entries beside the payload: {}. Pack them into the payload, or set \
             payload.overlay=yes where payload= is set",
            super::list(&facts.outside)
        ));
    }
    Ok(Some(index))
}

/// The tmpfs and the number of threads for the payload and the rest of the initramfs.
fn fit(facts: &Facts, options: &Options, index: &Index, warnings: &mut Vec<String>) -> Result<Fit, String> {
    let page = facts.page.max(1);
    let payload = index.memory(page);
    let chunks: u64 = index.chunks.iter().map(|chunk| chunk.size.next_multiple_of(page)).sum();
    let (tmpfs, fits) = tmpfs(&unpacked(facts, index, payload, chunks), options);
    fits.map_err(|why| format!("the payload does not fit: {why}"))?;
    let available = facts.memory.available.saturating_add(chunks);
    let besides = |threads: u32| {
        let inodes = index.inodes.saturating_mul(PER_INODE);
        inodes.saturating_add(index.frames[0].size).saturating_add(u64::from(threads) * WORKER)
    };
    let short = available < payload.saturating_add(besides(1)).saturating_add(swap::SYSTEM);
    let thousandths = zram::thousandths(index, swap::algorithm(facts, options));
    let need = |paged_out: Option<&Wanted>, threads: u32| {
        let tree = paged_out.map_or(payload, |device| swap::least(payload, device, thousandths, page));
        tree.saturating_add(besides(threads))
    };
    // Refuse only a payload that certainly does not fit: nothing else could be booted.
    let without = payload <= available.saturating_add(HELD_BACK);
    let mut zram = swap::wanted(facts, options, short, payload, warnings);
    if options.zram == Zram::Auto
        && without
        && zram.as_ref().is_some_and(|device| available < need(Some(device), 1))
    {
        warnings.push("zram=auto ignored: the pages of the payload do not compress enough".to_string());
        zram = None;
    }
    let device = zram.as_ref().filter(|_| swap::pages_out(options));
    // Where the kernel runs out of pages to page out, it searches for minutes and fails no call.
    let fits = device.map_or(without, |device| need(Some(device), 1) <= available);
    if !fits {
        let minimum = device.map_or(payload, |device| need(Some(device), 1));
        let cure = if options.zram == Zram::No { ", or set zram=auto" } else { "" };
        return Err(format!(
            "the payload needs {} KiB of memory, but only {} KiB are available once its chunks are freed; \
             give the machine more memory{cure}",
            minimum >> 10,
            available >> 10
        ));
    }
    let mut threads = options.threads.unwrap_or(facts.cpus).clamp(1, 8);
    if available < need(None, threads) {
        threads = 1;
    }
    let tight = available < need(None, threads).saturating_add(facts.memory.total / 8 + PLENTY);
    if available < need(device, threads) {
        warnings.push(format!(
            "unpacking needs about {} KiB of memory, but only {} KiB are available; trying anyway",
            need(device, threads) >> 10,
            available >> 10
        ));
    }
    Ok(Fit { tmpfs, threads, tight, zram })
}

/// The facts as if the payload were unpacked already. The chunks are not part of the tree, and the index is
/// negligible.
fn unpacked(facts: &Facts, index: &Index, payload: u64, chunks: u64) -> Facts {
    let number = u64::try_from(index.chunks.len()).unwrap_or(u64::MAX);
    let others = &facts.survey;
    let mut after = facts.clone();
    after.survey = Survey {
        entries: index.entries.saturating_add(others.entries.saturating_sub(number)),
        bytes: payload.saturating_add(others.bytes.saturating_sub(chunks)),
        largest: index.largest.max(others.largest),
        ..*others
    };
    after.capacity.free_inodes = after.capacity.inodes;
    after.manifest = after.manifest.saturating_add(index.xattrs);
    after
}
