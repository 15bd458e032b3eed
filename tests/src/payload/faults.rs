//! Every system call of a run that unpacks a payload made to fail in turn.
//!
//! Before the first chunk is freed a fault leaves everything as it was, and all is tried once more: the run must end with an init on a
//! complete tree. After it the system may be torn, and then no init may run: the cause is told, with the chunk while there are any.
use super::{RULES, arrived, carried, noise, pack, unpacked};
use crate::calls::name;
use crate::faults::{DEADLINE, ERRORS, Outcome, Point, error_name};
use crate::intercept::{Call, Calls, Verdict};
use crate::sandbox::{End, Setup};
use crate::stage::{Prepared, Stage};
use crate::trees::{Fs, one_of_each};
use repot_snapshot::{Snapshot, difference, snapshot};

/// How far a run is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Nothing was freed.
    Before,
    /// Chunks are being freed.
    Chunks,
    /// All chunks are gone.
    After,
}

impl Phase {
    /// What it is behind this call.
    fn behind(self, call: &Call) -> Phase {
        match call.text(1).as_slice() {
            _ if call.number != libc::SYS_unlinkat || call.program != 1 => self,
            b"index" => Phase::After,
            name if self == Phase::Before && name.iter().all(u8::is_ascii_digit) => Phase::Chunks,
            _ => self,
        }
    }
}

/// What is missing of the account that a run without an init gives of a fault.
fn untold(point: &Point, phase: Phase, log: &str) -> Option<&'static str> {
    // Whichever error the kernel gave, to the allocator it is want of memory.
    let memory = [libc::SYS_brk, libc::SYS_mmap, libc::SYS_mremap].contains(&point.call);
    let call = name(point.call);
    let (call, error) = if memory { ("", "ENOMEM") } else { (call.as_str(), error_name(point.error)) };
    // What a kernel says when it closes a file, it says of one that is closed. Here it stays open, and open for writing it cannot
    // be executed.
    let open = point.call == libc::SYS_close && log.contains("ETXTBSY");
    let named = open || log.contains(call) && log.contains(error);
    let unexecuted = log.contains("execve failed for every init");
    let chunk =
        ["in chunk 0", ".repot-payload/0", "unlinkat \"index\""].iter().any(|place| log.contains(place));
    let wrong = [
        (phase == Phase::Before, "nothing was freed, and yet there is no init"),
        (!named, "the call and its error are not told"),
        // The tree is whole where an init could be executed but for the fault.
        (
            !unexecuted && !log.contains("chunks of the payload are already freed"),
            "it is not told that there is no way back",
        ),
        (!unexecuted && phase == Phase::Chunks && !chunk, "the chunk is not told"),
    ];
    wrong.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
}

/// Whether it is an outcome that must not be.
#[must_use]
pub fn is_bad(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Moved | Outcome::GaveUp(_) | Outcome::NotReached)
}

/// A small image, packed once: every kind of entry, several frames, a file in pieces, an entry of the outer archive that overrides.
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
            // In two pieces.
            let mut large = noise(8, 300_000);
            large.resize(5 << 20, 0);
            stage.file("large", &large);
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
                let points_here = ERRORS.map(|error| Point { fs: Fs::Tmpfs, call, nth: *nth, error });
                points.extend(points_here.into_iter().filter(Point::can_be));
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
        // As in the other sweep.
        if matches!(outcome, Outcome::Late | Outcome::NotReached) { self.run_once(point) } else { outcome }
    }

    fn run_once(&self, point: &Point) -> Outcome {
        let prepared = self.prepared();
        let mut running = prepared
            .start(&Setup { calls: Calls::These(vec![point.call, libc::SYS_unlinkat]), ..Setup::default() });
        let (mut seen, mut phase, mut failed) = (0, Phase::Before, None);
        let end = running.wait_until(DEADLINE, None, &mut |call| {
            if call.number == point.call && call.program == 1 {
                seen += 1;
                if seen - 1 == point.nth {
                    failed = Some(phase);
                    return Verdict::Fail(point.error);
                }
            }
            phase = phase.behind(call);
            Verdict::Continue
        });
        let log = running.log();
        let Some(phase) = failed else { return Outcome::NotReached };
        let gave_up = |log: String| match untold(point, phase, &log) {
            None => Outcome::GaveUp(log),
            Some(what) => Outcome::Wrong(format!("{phase:?}: {what}; it printed:\n{log}")),
        };
        match end {
            End::Init(_) => {
                let root = snapshot(running.root()).expect("a snapshot");
                let mut after = arrived(&root);
                after.remove(&b"run"[..]);
                // What is written to a terminal shows in its time: an init that knows nothing of its output opens the console.
                if let (Some(console), Some(before)) =
                    (after.get_mut(&b"dev/console"[..]), self.before.get(&b"dev/console"[..]))
                {
                    console.mtime = before.mtime;
                }
                let lost = difference(&self.before, &after, RULES);
                // Attributes that the kernel refuses are left out, and told.
                let told = log.contains("skipped") && lost.lines().all(|line| line.contains("xattrs"));
                let moved = prepared.mounts["/"][0].what.device != running.mounts()["/"][0].what.device;
                match (lost.is_empty() || told, moved, running.mounts().contains_key("/run")) {
                    (true, true, true) => Outcome::Moved,
                    _ => Outcome::Wrong(format!("{lost}moved: {moved}; it printed:\n{log}")),
                }
            }
            // To a pid namespace, switching off is SIGINT.
            End::Killed(2) if log.contains("repot: ") => gave_up(log),
            End::Late => Outcome::Late,
            other @ (End::Exited(_) | End::Killed(_) | End::Said) => {
                Outcome::Wrong(format!("{other:?}; it printed:\n{log}"))
            }
        }
    }
}
