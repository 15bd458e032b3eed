//! Every system call of a run that unpacks a payload fails in turn.
//!
//! Before the first chunk is freed, a failure changes nothing, and everything is tried once more: the run
//! must end with an init on a complete tree. After that, the system may be past the point of no return. Then
//! no init may run, and the log must say why, with the name of the chunk while chunks are being unpacked.
use super::{RULES, arrived, carried, noise, pack, unpacked};
use crate::calls::name;
use crate::faults::{DEADLINE, ERRORS, Outcome, Point, error_name};
use crate::intercept::{Call, Calls, Verdict};
use crate::sandbox::{End, Setup};
use crate::stage::{Prepared, Stage};
use crate::trees::{Fs, one_of_each};
use repot_snapshot::{Snapshot, difference, snapshot};

/// The progress of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Nothing has been freed.
    Before,
    /// Chunks are being freed.
    Chunks,
    /// All chunks are freed.
    After,
}

impl Phase {
    /// The progress after this call.
    fn behind(self, call: &Call) -> Phase {
        match call.text(1).as_slice() {
            _ if call.number != libc::SYS_unlinkat || call.program != 1 => self,
            b"index" => Phase::After,
            name if self == Phase::Before && name.iter().all(u8::is_ascii_digit) => Phase::Chunks,
            _ => self,
        }
    }
}

/// What is missing in the log of a run that ends without an init.
fn missing_in_log(point: &Point, phase: Phase, log: &str) -> Option<&'static str> {
    // The allocator reports every error as lack of memory.
    let memory = [libc::SYS_brk, libc::SYS_mmap, libc::SYS_mremap].contains(&point.call);
    let call = name(point.call);
    let (call, error) = if memory { ("", "ENOMEM") } else { (call.as_str(), error_name(point.error)) };
    // On a failed close, the kernel has closed the file. Here it stays open, and a file that is open for
    // writing cannot be executed.
    let open = point.call == libc::SYS_close && log.contains("ETXTBSY");
    let named = open || log.contains(call) && log.contains(error);
    let unexecuted = log.contains("execve failed for every init");
    let chunk =
        ["in chunk 0", ".repot-payload/0", "unlinkat \"index\""].iter().any(|place| log.contains(place));
    let wrong = [
        (phase == Phase::Before, "nothing was freed, and yet there is no init"),
        (!named, "the log does not name the call and its error"),
        // The tree is whole if an init could run but for the failure.
        (
            !unexecuted && !log.contains("chunks of the payload are already freed"),
            "the log does not say that chunks are already freed",
        ),
        (!unexecuted && phase == Phase::Chunks && !chunk, "the log does not name the chunk"),
    ];
    wrong.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
}

/// Whether an outcome is not allowed.
#[must_use]
pub fn is_bad(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Moved | Outcome::GaveUp(_) | Outcome::NotReached)
}

/// A small image, packed once: every type of entry, several frames, a file in pieces, an entry of the outer
/// archive that overrides.
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
    /// If that fails.
    #[must_use]
    pub fn new() -> Sweep {
        // One thread, so that the nth call is the same one in every run.
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

    /// All points, from one run without a failure.
    ///
    /// # Panics
    /// If that run does not end.
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
            // Without the calls of the C library before `main`, and those that cannot fail.
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

    /// Runs with one failure and returns the outcome.
    ///
    /// # Panics
    /// If the test itself fails.
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
        let gave_up = |log: String| match missing_in_log(point, phase, &log) {
            None => Outcome::GaveUp(log),
            Some(what) => Outcome::Wrong(format!("{phase:?}: {what}; it printed:\n{log}")),
        };
        match end {
            End::Init(_) => {
                let root = snapshot(running.root()).expect("a snapshot");
                let mut after = arrived(&root);
                after.remove(&b"run"[..]);
                // Output to a terminal takes time: an init without a working output opens the console.
                if let (Some(console), Some(before)) =
                    (after.get_mut(&b"dev/console"[..]), self.before.get(&b"dev/console"[..]))
                {
                    console.mtime = before.mtime;
                }
                let lost = difference(&self.before, &after, RULES);
                // Attributes that the kernel refuses are skipped and logged.
                let told = log.contains("skipped") && lost.lines().all(|line| line.contains("xattrs"));
                let moved = prepared.mounts["/"][0].what.device != running.mounts()["/"][0].what.device;
                match (lost.is_empty() || told, moved, running.mounts().contains_key("/run")) {
                    (true, true, true) => Outcome::Moved,
                    _ => Outcome::Wrong(format!("{lost}moved: {moved}; it printed:\n{log}")),
                }
            }
            // In a PID namespace, power-off is SIGINT.
            End::Killed(2) if log.contains("repot: ") => gave_up(log),
            End::Late => Outcome::Late,
            other @ (End::Exited(_) | End::Killed(_) | End::Printed) => {
                Outcome::Wrong(format!("{other:?}; it printed:\n{log}"))
            }
        }
    }
}
