//! Log lines: the facts, the plan, the progress and the summary.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::display::{Bytes, Quoted};
use crate::facts::Facts;
use crate::plan::{Method, Plan};
use crate::progress::{Progress, Total};
use crate::switch::Ready;

/// The summary of a boot.
pub(crate) fn summary(plan: &Plan, ready: Option<&Ready>, nanoseconds: u64, init: &[u8]) -> String {
    let Plan { method, reason, .. } = plan;
    let head = format!("{}: {reason}", method.name());
    let Some(ready) = ready else { return format!("{head}; executing {}", Quoted(init)) };
    let progress = &ready.progress;
    let milliseconds = match nanoseconds {
        0..10_000_000 => format!("{}.{}", nanoseconds / 1_000_000, nanoseconds / 100_000 % 10),
        _ => format!("{}", nanoseconds / 1_000_000),
    };
    let (entries, bytes) = (progress.entries(), progress.bytes());
    let extra = progress.peak() + ready.resident;
    let old = match (ready.pivoted, ready.empty) {
        _ if !matches!(method, Method::Move | Method::Payload) => "",
        (true, true) => "old root empty and unmounted, ",
        (true, false) => "old root unmounted, ",
        (false, true) => "old root empty, ",
        (false, false) => "old root NOT empty, ",
    };
    format!(
        "{head}; {entries} entries, {}, {milliseconds} ms, {} extra at the peak, {old}{} mounts carried; executing {}",
        Bytes(bytes),
        Bytes(extra),
        ready.mounts,
        Quoted(init)
    )
}

/// The facts, for `log=debug`.
pub(crate) fn found(facts: &Facts) -> String {
    let Facts { rootfs, initial, parentless, shared, mounts, survey, memory, others, cpus, .. } = facts;
    format!(
        "facts: / is {rootfs:?}, initial {initial}, no parent {parentless}, shared {shared}; {} mounts; {} entries: \
         {} directories, {} hard links, {} special; {} of files, largest {}; {} of {} memory available; \
         {cpus} CPUs; {} other processes",
        mounts.len(),
        survey.entries,
        survey.directories,
        survey.hard_links,
        survey.special,
        Bytes(survey.contents),
        Bytes(survey.largest),
        Bytes(memory.available),
        Bytes(memory.total),
        others.len(),
    )
}

/// The plan, for `log=debug`.
pub(crate) fn decided(plan: &Plan) -> String {
    let Plan { method, reason, tmpfs, threads, inits, .. } = plan;
    let or_default = |value: &Option<String>| value.clone().unwrap_or_else(|| String::from("default"));
    let init = inits.first().map_or(&b""[..], Vec::as_slice);
    format!(
        "plan: {} ({reason}), size {}, nr_inodes {}, {threads} threads, init {}",
        method.name(),
        or_default(&tmpfs.size),
        or_default(&tmpfs.nr_inodes),
        Quoted(init)
    )
}

/// The progress of a long move.
pub(crate) fn so_far(progress: &Progress, total: Total) -> String {
    let (entries, bytes) = (progress.entries(), progress.bytes());
    format!("moved {entries} of {} entries, {} of {}", total.entries, Bytes(bytes), Bytes(total.bytes))
}
