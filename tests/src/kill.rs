//! The mover is killed in the middle. Where is each byte?
//!
//! PID 1 is never killed. But the rollback relies on what must hold at every moment: each byte is in the old
//! or in the new tree, and only bytes that are being moved are in both.
use std::collections::BTreeMap;
use std::fmt::Write;

use crate::intercept::Verdict;
use crate::sandbox::{DEADLINE, End, Running};
use crate::stage::Prepared;
use crate::twin::Twin;
use repot_snapshot::{Entry, Kind, Snapshot, snapshot};

/// The two trees after the kill. The new one is empty if it did not exist yet or was already `/`.
#[derive(Debug)]
pub struct Torn {
    /// What is left in the old tree.
    pub old: Snapshot,
    /// What has arrived in the new tree.
    pub new: Snapshot,
}

/// Kills the process before its `nth` intercepted call. Returns `None` if it ended before that.
///
/// # Panics
/// If the test itself fails.
pub fn kill_before_call(prepared: &Prepared, mut running: Running, nth: u64) -> Option<Torn> {
    let pid = running.pid();
    let mut twin = None;
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        if call.nth < nth || call.program > 1 {
            return Verdict::Continue;
        }
        // Another thread may have made its call before the kill arrived; no descriptors are left by then.
        twin.get_or_insert_with(|| Twin::of(pid, &prepared.view));
        Verdict::Kill
    });
    match end {
        End::Killed(9) => twin.map(|twin| torn(prepared, &twin)),
        End::Init(_) => None,
        other @ (End::Exited(_) | End::Killed(_) | End::Printed | End::Late) => {
            panic!("{other:?}; it printed:\n{}", running.log())
        }
    }
}

/// Stops the process after `delay`, then kills it. Returns `None` if it ended before that.
///
/// # Panics
/// If the test itself fails.
pub fn kill_after(prepared: &Prepared, mut running: Running, delay: std::time::Duration) -> Option<Torn> {
    match running.wait_until(delay, None, &mut |_| Verdict::Continue) {
        End::Late => {}
        End::Init(_) => return None,
        other @ (End::Exited(_) | End::Killed(_) | End::Printed) => {
            panic!("{other:?}; it printed:\n{}", running.log())
        }
    }
    running.freeze();
    let twin = Twin::of(running.pid(), &prepared.view);
    drop(running);
    Some(torn(prepared, &twin))
}

fn torn(prepared: &Prepared, twin: &Twin) -> Torn {
    let old = snapshot(&prepared.view).expect("a snapshot of the old root");
    Torn { old, new: twin.tree() }
}

impl Torn {
    /// What is wrong: paths and bytes in neither tree, or more than `most` bytes in both.
    #[must_use]
    pub fn complaints(&self, before: &Snapshot, most: u64) -> String {
        let mut said = String::new();
        for (path, entry) in before {
            if !self.old.contains_key(path) && !self.new.contains_key(path) {
                writeln!(said, "/{}: a {:?} in neither tree", path.escape_ascii(), entry.kind)
                    .expect("a String");
            }
        }
        let mut twice = 0;
        for (first, paths) in inodes(before) {
            let entry = &before[first];
            let Some(content) = &entry.content else { continue };
            for &(at, page) in content.pages() {
                let (old, new) = (has(&self.old, &paths, at, page), has(&self.new, &paths, at, page));
                if !old && !new {
                    writeln!(said, "/{}: page at {at} in neither tree", first.escape_ascii())
                        .expect("a String");
                }
                if old && new {
                    twice += (entry.size - at).min(4096);
                }
            }
        }
        if twice > most {
            writeln!(said, "{twice} bytes are in both trees, {most} may be").expect("a String");
        }
        said
    }
}

/// The regular files of a tree, one per inode, with all hard links.
fn inodes(tree: &Snapshot) -> BTreeMap<&Vec<u8>, Vec<&Vec<u8>>> {
    let mut inodes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (path, entry) in tree.iter().filter(|(_, entry)| entry.kind == Kind::File) {
        inodes.entry(entry.linked.as_ref().unwrap_or(path)).or_default().push(path);
    }
    inodes
}

/// Whether a file has a page with this checksum there, by any of its hard links.
fn has(tree: &Snapshot, names: &[&Vec<u8>], at: u64, page: u64) -> bool {
    let found =
        |entry: &Entry| entry.content.as_ref().is_some_and(|content| content.checksum_at(at) == Some(page));
    names.iter().filter_map(|name| tree.get(*name)).any(found)
}
