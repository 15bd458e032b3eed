//! Every system call of a run that unpacks a payload made to fail in turn.
//!
//! Before the first chunk is freed a fault leaves everything as it was, and the unpacking is tried once more; after it the system
//! may be torn, and then no init may run. So a run ends with an init on a complete tree, or without one and with the cause told.
use rustix::io::Errno;

use super::{RULES, arrived, carried, noise, pack, unpacked};
use crate::calls::name;
use crate::faults::{DEADLINE, ERRORS, Outcome, error_name};
use crate::intercept::{Calls, Verdict};
use crate::sandbox::{End, Setup};
use crate::snapshot::{Snapshot, difference, snapshot};
use crate::stage::{Prepared, Stage};
use crate::trees::{Fs, one_of_each};

/// One fault: the `nth` time (from 0) that the init makes this call, it fails with this error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Point {
    /// Number of the call.
    pub call: i64,
    /// Which of them.
    pub nth: u64,
    /// The error.
    pub error: Errno,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} #{} {}", name(self.call), self.nth, error_name(self.error))
    }
}

/// What is told where nothing is known of `onerror=`.
const STAYS: &str = "nothing more can be done";

fn untouched(prepared: &Prepared) -> bool {
    let now = snapshot(&prepared.view).expect("a snapshot");
    difference(&prepared.before, &now, RULES).is_empty()
}

/// A small image, packed once: every kind of entry, several frames, an entry of the outer archive that overrides.
#[derive(Debug)]
pub struct Sweep {
    image: Vec<u8>,
    before: Snapshot,
}

impl Default for Sweep {
    fn default() -> Sweep {
        Sweep::new()
    }
}

impl Sweep {
    /// Packs it.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn new() -> Sweep {
        // One thread, so that the nth call is the same one each time.
        let packed = pack(&["mode=move", "threads=1", "onerror=poweroff"], |stage| {
            stage.plant(&one_of_each());
            stage.file("noise", &noise(7, 600_000));
            std::fs::hard_link(stage.path("noise"), stage.path("linked")).expect("linked");
        });
        Sweep { before: carried(&packed.before), image: packed.image }
    }

    fn prepared(&self) -> Prepared {
        unpacked(Fs::Tmpfs, &[], &[&self.image], |stage: &Stage| {
            stage.mount(Fs::Tmpfs, "run");
            stage.file("run/file", b"not ours to touch");
        })
    }

    /// All points, by running once without a fault.
    ///
    /// # Panics
    /// When that run does not come to its end.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        let prepared = self.prepared();
        let mut running = prepared.start(&Setup { calls: Calls::All, ..Setup::default() });
        let mut calls = vec![];
        let end = running.wait_until(DEADLINE, None, &mut |call| {
            calls.push(call.number);
            Verdict::Continue
        });
        assert_eq!(end, End::Init("ready".into()), "{}", running.log());
        let last =
            calls.iter().rposition(|&call| call == libc::SYS_execve).expect("the real init was executed");
        calls.truncate(last + 1);
        let mut seen = std::collections::BTreeMap::<i64, u64>::new();
        let mut points = vec![];
        for call in calls {
            let nth = seen.entry(call).or_default();
            // What the C library does before `main`, and what cannot fail.
            let left_out = [
                libc::SYS_exit,
                libc::SYS_getpid,
                libc::SYS_set_tid_address,
                #[cfg(target_arch = "x86_64")]
                libc::SYS_arch_prctl,
            ];
            if !left_out.contains(&call) {
                // musl takes ENOSYS from mprotect for a machine without memory protection.
                let can_be = |error: &Errno| (call, *error) != (libc::SYS_mprotect, Errno::NOSYS);
                points.extend(ERRORS.into_iter().filter(can_be).map(|error| Point {
                    call,
                    nth: *nth,
                    error,
                }));
            }
            *nth += 1;
        }
        points
    }

    /// Runs with one fault and says what came of it.
    ///
    /// # Panics
    /// When the harness fails.
    #[must_use]
    pub fn run(&self, point: &Point) -> Outcome {
        let outcome = self.run_once(point);
        // A machine with much else to do can be late by itself; what hangs does so again.
        if outcome == Outcome::Late { self.run_once(point) } else { outcome }
    }

    fn run_once(&self, point: &Point) -> Outcome {
        let prepared = self.prepared();
        let mut running =
            prepared.start(&Setup { calls: Calls::These(vec![point.call]), ..Setup::default() });
        let (mut seen, mut failed) = (0, false);
        let end = running.wait_until(DEADLINE, Some(STAYS), &mut |call| {
            if call.number != point.call || call.program != 1 {
                return Verdict::Continue;
            }
            seen += 1;
            if seen - 1 != point.nth {
                return Verdict::Continue;
            }
            failed = true;
            Verdict::Fail(point.error)
        });
        let log = running.log();
        match end {
            _ if !failed => Outcome::NotReached,
            End::Init(_) => {
                let root = snapshot(running.root()).expect("a snapshot");
                let mut after = arrived(&root);
                let lost = difference(
                    &self.before,
                    &{
                        after.remove(&b"run"[..]);
                        after
                    },
                    RULES,
                );
                // Attributes that the kernel refuses are left out, and told.
                let told = log.contains("left out") && lost.lines().all(|line| line.contains("xattrs"));
                let moved = prepared.mounts["/"][0].what.device != running.mounts()["/"][0].what.device;
                match (lost.is_empty() || told, moved, running.mounts().contains_key("/run")) {
                    (true, true, true) => Outcome::Moved,
                    _ => Outcome::Wrong(format!("{lost}moved: {moved}; it printed:\n{log}")),
                }
            }
            // To a pid namespace, switching off is SIGINT. Where the configuration could not be read, it is as panic= says.
            End::Killed(1 | 2) | End::Said if log.contains("repot: ") => Outcome::GaveUp(log),
            // Where not even procfs is to be had, it is the kernel log, the machine's own, that is told: and nothing is touched.
            End::Late if log.is_empty() && untouched(&prepared) => Outcome::GaveUp(log),
            End::Late => Outcome::Late,
            other @ (End::Exited(_) | End::Killed(_) | End::Said) => {
                Outcome::Wrong(format!("{other:?}; it printed:\n{log}"))
            }
        }
    }
}
