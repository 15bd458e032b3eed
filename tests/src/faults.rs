//! Every system call of a run fails in turn.
//!
//! A first run finds the calls ([`points`]). Then, for each call and each error, one run lets that call fail
//! ([`run`]). With any single failure, the machine must boot: an init on a complete tree, with every mount in
//! place.
//!
//! A ramfs is left by `chroot`: its `pivot_root` always fails, as on the initial root of kernels before 7.0.
//! A tmpfs is left by `pivot_root`.
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::MountFlags;

use crate::calls::name;
use crate::intercept::{Call, Calls, Verdict};
use crate::mounts::carried;
use crate::programs;
use crate::sandbox::{End, Running, Setup};
use crate::stage::{Prepared, Stage, prepare};
use crate::trees::{Fs, one_of_each};
use repot_snapshot::{Rules, Snapshot, difference, snapshot};

/// The errors of each call.
pub const ERRORS: [Errno; 5] = [Errno::NOMEM, Errno::NOSPC, Errno::IO, Errno::PERM, Errno::NOSYS];

/// The first init may not be the one that runs.
const RULES: Rules =
    Rules { read: &["init", "sbin/init", "bin/init", "etc/repot.conf"], gone: &["init"], ..Rules::EXACT };

/// The time limit of a run.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// One failure: the `nth` time (from 0) that the init makes this call, it fails with this error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Point {
    /// The file system of the root.
    pub fs: Fs,
    /// The number of the call.
    pub call: i64,
    /// Which of these calls.
    pub nth: u64,
    /// The error.
    pub error: Errno,
}

/// The outcome of a run with one failure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Everything was moved all the same.
    Moved,
    /// The init runs on the old file system, bind-mounted.
    Bound,
    /// The init runs on the old root.
    Stayed,
    /// The call was not made in this run.
    NotReached,
    /// The run ended without an init, as `onerror=` says.
    GaveUp(String),
    /// Neither an init nor an end within [`DEADLINE`].
    Late,
    /// An outcome that is not allowed: an incomplete tree, a lost mount, a process that ended.
    Wrong(String),
}

impl Outcome {
    /// Whether it is not allowed after a single failure.
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
    /// musl takes ENOSYS from mprotect for a machine without memory protection, continues, and then crashes.
    pub(crate) fn can_be(&self) -> bool {
        (self.call, self.error) != (libc::SYS_mprotect, Errno::NOSYS)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} #{} {}", self.fs.name(), name(self.call), self.nth, error_name(self.error))
    }
}

/// The tree of the sweep: every type of entry, mounts next to and on each other, and two inits.
fn scene(stage: &Stage) {
    // One thread, so that the nth call is the same one in every run.
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
    // Bind mounts of the root: of a file, of a directory with a mount on it, read-only, shared, stacked.
    stage.file("etc/name", b"a file of the root");
    stage.file("disk/data/name", b"hidden");
    stage.bind("etc/name", "disk/data/name");
    stage.file("srv/in/file", b"shown twice");
    stage.bind("srv", "srv");
    stage.share("srv");
    stage.mount(Fs::Tmpfs, "srv/in");
    stage.dir("opt");
    stage.bind("srv", "opt");
    stage.flags("opt", MountFlags::RDONLY);
    stage.plant(&one_of_each());
}

fn prepared(fs: Fs) -> Prepared {
    prepare(fs, scene)
}

/// All points of the sweep on an `fs`, from one run without a failure.
///
/// # Panics
/// If that run does not end.
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

/// The calls of a run, from the program's own first one to the execution of the real init.
///
/// # Panics
/// If the run does not end.
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
    // Calls of the C library before `main` are not the program's.
    let own = calls.iter().position(|call| !BEFORE_MAIN.contains(call)).expect("calls");
    let mut calls = calls.split_off(own);
    // The exit of a thread and gettid cannot fail.
    calls.retain(|call| ![libc::SYS_exit, libc::SYS_getpid].contains(call));
    calls
}

#[cfg(target_arch = "x86_64")]
const BEFORE_MAIN: [i64; 2] = [libc::SYS_arch_prctl, libc::SYS_set_tid_address];
#[cfg(not(target_arch = "x86_64"))]
const BEFORE_MAIN: [i64; 1] = [libc::SYS_set_tid_address];

/// The decision about all other calls.
pub(crate) fn without_fault(fs: Fs, call: &Call) -> Verdict {
    let refused = fs == Fs::Ramfs && call.number == libc::SYS_pivot_root && call.program == 1;
    if refused { Verdict::Fail(Errno::INVAL) } else { Verdict::Continue }
}

/// A fixed sample: each call and error on each file system once, in turn the first, the last or one in the
/// middle.
#[must_use]
pub fn sample(points: &[Point]) -> Vec<Point> {
    let mut groups: BTreeMap<(i64, &'static str), Vec<Point>> = BTreeMap::new();
    for point in points {
        groups.entry((point.call, error_name(point.error))).or_default().push(*point);
    }
    // A step that has no common factor with the number of errors, so that each error meets each position.
    groups
        .values()
        .enumerate()
        .map(|(number, group)| group[number * 7 % 12 * (group.len() - 1) / 11])
        .collect()
}

/// Runs with one failure and returns the outcome.
///
/// # Panics
/// If the test itself fails.
#[must_use]
pub fn run(point: &Point) -> Outcome {
    let outcome = run_once(point);
    // A busy machine can be late by itself, while a hang repeats. And the number of futex waits differs from
    // run to run.
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
        End::Init(_) => examine(&prepared, &running, &|_| ()),
        // In a PID namespace, power-off is SIGINT.
        End::Killed(2) => Outcome::GaveUp(running.log()),
        End::Late => Outcome::Late,
        other @ (End::Exited(_) | End::Killed(_) | End::Printed) => {
            Outcome::Wrong(format!("{other:?}; it printed:\n{}", running.log()))
        }
    }
}

/// Compares the tree and the mounts with those before. `trim` removes from both trees what is not compared.
pub(crate) fn examine(prepared: &Prepared, running: &Running, trim: &dyn Fn(&mut Snapshot)) -> Outcome {
    let log = running.log();
    let wrong = |what: String| Outcome::Wrong(format!("{what}\nit printed:\n{log}"));
    let (before, after) = (&prepared.mounts, running.mounts());
    let (mut wanted, mut root) = (prepared.before.clone(), snapshot(running.root()).expect("a snapshot"));
    trim(&mut wanted);
    trim(&mut root);
    let lost = difference(&wanted, &root, RULES);
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
        return wrong(format!("left in the old root, but not logged: {left:?}"));
    }
    Outcome::Moved
}

/// A table that counts the outcomes of each call and error.
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
