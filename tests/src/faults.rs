//! Every system call of a run made to fail in turn.
//!
//! A first run tells which calls there are ([`points`]); then, for each of them and each error, a run of its own in which
//! that one call fails ([`run`]). With one fault, whichever, the machine must come up: an init executed on a complete tree,
//! with every mount in place.
//!
//! A ramfs is left by `chroot`: its `pivot_root` is refused in every run, as the initial root's is by kernels before 7.0. A
//! tmpfs is left by `pivot_root`.
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use rustix::io::Errno;

use crate::calls::name;
use crate::intercept::{Call, Calls, Verdict};
use crate::mounts::carried;
use crate::programs;
use crate::sandbox::{End, Running, Setup};
use crate::stage::{Prepared, Stage, prepare};
use crate::trees::{Fs, one_of_each};
use repot_snapshot::{Rules, difference, snapshot};

/// The errors each call fails with in turn.
pub const ERRORS: [Errno; 5] = [Errno::NOMEM, Errno::NOSPC, Errno::IO, Errno::PERM, Errno::NOSYS];

/// The first init may not be the one that is executed.
const RULES: Rules = Rules { read: &["init", "sbin/init", "bin/init", "etc/repot.conf"], ..Rules::EXACT };

/// No run may take longer.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// One fault: the `nth` time (from 0) that the init makes this call, it fails with this error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Point {
    /// What the root is.
    pub fs: Fs,
    /// Number of the call.
    pub call: i64,
    /// Which of them.
    pub nth: u64,
    /// The error.
    pub error: Errno,
}

/// What a run with a fault came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Everything was moved nevertheless.
    Moved,
    /// The init runs on the old file system, mounted once more.
    Bound,
    /// The init runs on the old root.
    Stayed,
    /// The call was not made this time.
    NotReached,
    /// The run ended without an init: what `onerror=` asks for.
    GaveUp(String),
    /// Neither an init nor an end within [`DEADLINE`].
    Late,
    /// None of what may be: an incomplete tree, a lost mount, a process that ended.
    Wrong(String),
}

impl Outcome {
    /// Whether it is one that must not be, with a single fault.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        matches!(self, Outcome::Wrong(_) | Outcome::Late | Outcome::GaveUp(_))
    }

    /// The word for the table.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Moved => "moved",
            Outcome::Bound => "bound",
            Outcome::Stayed => "stayed",
            Outcome::NotReached => "not reached",
            Outcome::GaveUp(_) => "onerror",
            Outcome::Late => "LATE",
            Outcome::Wrong(_) => "WRONG",
        }
    }
}

impl Point {
    /// musl takes ENOSYS from mprotect for a machine without memory protection and goes on, into what is protected.
    pub(crate) fn can_be(&self) -> bool {
        (self.call, self.error) != (libc::SYS_mprotect, Errno::NOSYS)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} #{} {}", self.fs.name(), name(self.call), self.nth, error_name(self.error))
    }
}

/// The tree of the sweep: every kind of entry, mounts next to and upon each other, and two inits to choose from.
fn scene(stage: &Stage) {
    // One thread, so that the nth call is the same one each time.
    stage.install("mode=move\nthreads=1\nonerror=poweroff\n");
    stage.program("bin/init", programs::helper());
    stage.mount(Fs::Tmpfs, "disk/data");
    stage.file("disk/data/file", b"not ours to touch");
    stage.mount(Fs::Ramfs, "disk/data/inner");
    stage.mount(Fs::Tmpfs, "disk/data");
    stage.file("etc/resolv.conf", b"beneath");
    stage.bind("disk/data", "disk/data");
    stage.file("disk/data/resolv.conf", b"on top");
    stage.bind("disk/data/resolv.conf", "etc/resolv.conf");
    stage.plant(&one_of_each());
}

fn prepared(fs: Fs) -> Prepared {
    prepare(fs, scene)
}

/// All points of the sweep on an `fs`, by running once without a fault.
///
/// # Panics
/// When that run does not come to its end.
#[must_use]
pub fn points(fs: Fs) -> Vec<Point> {
    let mut seen: BTreeMap<i64, u64> = BTreeMap::new();
    let mut order = vec![];
    for call in calls_of_a_run(fs) {
        let nth = seen.entry(call).or_default();
        let points = ERRORS.map(|error| Point { fs, call, nth: *nth, error });
        order.extend(points.into_iter().filter(Point::can_be));
        *nth += 1;
    }
    order
}

/// The calls of a run between the first of the program's own and the execution of the real init.
///
/// # Panics
/// When the run does not come to its end.
#[must_use]
pub fn calls_of_a_run(fs: Fs) -> Vec<i64> {
    let prepared = prepared(fs);
    let mut running = prepared.start(&Setup { calls: Calls::All, ..Setup::default() });
    let mut calls = vec![];
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        calls.push(call.number);
        without_fault(fs, call)
    });
    assert_eq!(end, End::Init("ready".into()), "{}", running.log());
    let last = calls.iter().rposition(|&call| call == libc::SYS_execve).expect("the real init was executed");
    calls.truncate(last + 1);
    // What the C library does before `main` is not the program's to handle.
    let own = calls.iter().position(|call| !BEFORE_MAIN.contains(call)).expect("calls");
    let mut calls = calls.split_off(own);
    // The end of a thread and its own number are not things that can fail.
    calls.retain(|call| ![libc::SYS_exit, libc::SYS_getpid].contains(call));
    calls
}

#[cfg(target_arch = "x86_64")]
const BEFORE_MAIN: [i64; 2] = [libc::SYS_arch_prctl, libc::SYS_set_tid_address];
#[cfg(not(target_arch = "x86_64"))]
const BEFORE_MAIN: [i64; 1] = [libc::SYS_set_tid_address];

/// What becomes of the calls that are not to fail.
fn without_fault(fs: Fs, call: &Call) -> Verdict {
    let refused = fs == Fs::Ramfs && call.number == libc::SYS_pivot_root && call.program == 1;
    if refused { Verdict::Fail(Errno::INVAL) } else { Verdict::Continue }
}

/// A fixed part of the points: each call and error on each file system, once, by turns the first, the last or one between.
#[must_use]
pub fn sample(points: &[Point]) -> Vec<Point> {
    let mut groups: BTreeMap<(i64, &'static str), Vec<Point>> = BTreeMap::new();
    for point in points {
        groups.entry((point.call, error_name(point.error))).or_default().push(*point);
    }
    // A step without a common factor with the number of errors, so that each error meets each place.
    groups
        .values()
        .enumerate()
        .map(|(number, group)| group[number * 7 % 12 * (group.len() - 1) / 11])
        .collect()
}

/// Runs with one fault and says what came of it.
///
/// # Panics
/// When the harness fails.
#[must_use]
pub fn run(point: &Point) -> Outcome {
    let outcome = run_once(point);
    // A machine with much else to do can be late by itself; what hangs does so again. And how often threads wait for one another
    // is not the same in each run.
    if matches!(outcome, Outcome::Late | Outcome::NotReached) { run_once(point) } else { outcome }
}

fn run_once(point: &Point) -> Outcome {
    let prepared = prepared(point.fs);
    let calls = Calls::These(vec![point.call, libc::SYS_pivot_root]);
    let mut running = prepared.start(&Setup { calls, ..Setup::default() });
    let (mut seen, mut failed) = (0, false);
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        if call.number != point.call || call.program != 1 {
            return without_fault(point.fs, call);
        }
        seen += 1;
        if seen - 1 != point.nth {
            return without_fault(point.fs, call);
        }
        failed = true;
        Verdict::Fail(point.error)
    });
    match end {
        _ if !failed => Outcome::NotReached,
        End::Init(_) => examine(&prepared, &running),
        // To a pid namespace, switching off is SIGINT.
        End::Killed(2) => Outcome::GaveUp(running.log()),
        End::Late => Outcome::Late,
        other @ (End::Exited(_) | End::Killed(_) | End::Said) => {
            Outcome::Wrong(format!("{other:?}; it printed:\n{}", running.log()))
        }
    }
}

fn examine(prepared: &Prepared, running: &Running) -> Outcome {
    let log = running.log();
    let wrong = |what: String| Outcome::Wrong(format!("{what}\nit printed:\n{log}"));
    let (before, after) = (&prepared.mounts, running.mounts());
    let root = snapshot(running.root()).expect("a snapshot");
    let lost = difference(&prepared.before, &root, RULES);
    if !lost.is_empty() {
        return wrong(lost);
    }
    if carried(before) != carried(&after) {
        return wrong(format!("mounts were {:?}, are {:?}", carried(before), carried(&after)));
    }
    for (path, (_, before)) in &prepared.mounted {
        let now = snapshot(running.mounted(path)).expect("a snapshot");
        let lost = difference(before, &now, RULES);
        if !lost.is_empty() {
            return wrong(format!("in the mount at {path}: {lost}"));
        }
    }
    if before["/"][0].what.device == after["/"][0].what.device {
        return if log.contains("bind: ") { Outcome::Bound } else { Outcome::Stayed };
    }
    let left = snapshot(&prepared.view).expect("a snapshot");
    if left.len() > 1 && !log.contains("NOT empty") && !log.contains("; left in place") {
        let left: Vec<_> = left.keys().map(|path| path.escape_ascii().to_string()).collect();
        return wrong(format!("left in the old root, and not told: {left:?}"));
    }
    Outcome::Moved
}

/// A table of what came of each call and error: how often.
#[must_use]
pub fn table(results: &[(Point, Outcome)]) -> String {
    let mut cells: BTreeMap<(String, &'static str), BTreeMap<&'static str, usize>> = BTreeMap::new();
    for (point, outcome) in results {
        let error = error_name(point.error);
        *cells.entry((name(point.call), error)).or_default().entry(outcome.word()).or_default() += 1;
    }
    let mut text = "| call | error | outcome |\n|---|---|---|\n".to_owned();
    for ((call, error), outcomes) in cells {
        let outcomes: Vec<_> = outcomes.iter().map(|(word, count)| format!("{count} {word}")).collect();
        writeln!(text, "| {call} | {error} | {} |", outcomes.join(", ")).expect("a String takes all");
    }
    text
}

/// The name of one of [`ERRORS`].
#[must_use]
pub fn error_name(error: Errno) -> &'static str {
    match error {
        Errno::NOMEM => "ENOMEM",
        Errno::NOSPC => "ENOSPC",
        Errno::IO => "EIO",
        Errno::PERM => "EPERM",
        Errno::NOSYS => "ENOSYS",
        _ => "?",
    }
}
