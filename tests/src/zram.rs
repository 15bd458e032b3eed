//! A zram driver that this machine does not have, played by the test, and every call of its use failing.
//!
//! The init sees a sysfs that consists of files of the test, and swapon(2), swapoff(2) and `finit_module`(2)
//! return what they would with a driver. Its other calls are real. The kernel's own side of it is tested by
//! the boots.
use std::fs::{self, File, create_dir_all};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use tempfile::TempDir;

use crate::faults::{self, DEADLINE, ERRORS, Outcome, Point};
use crate::intercept::{Call, Calls, Verdict};
use crate::sandbox::{End, Running, Setup};
use crate::stage::{Prepared, prepare};
use crate::trees::{Fs, one_of_each};
use repot_snapshot::Snapshot;

/// The calls that the driver answers.
const ANSWERED: [i64; 7] = [
    libc::SYS_readlinkat,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_openat,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_finit_module,
];

/// The init asks for its PID namespace this many times before it wants to know whether swap is its own.
const EARLIER: usize = 3;

/// The driver, and what the init has done with it.
#[derive(Debug)]
pub struct Driver {
    folder: TempDir,
    sysfs: File,
    device: File,
    swaps: File,
    /// What finit_module(2) returns.
    pub loads: Result<(), Errno>,
    /// What swapon(2) returns.
    pub swaps_on: Result<(), Errno>,
    /// The device is in use as swap.
    pub on: bool,
    /// The init has used the files of a device, so one exists.
    pub used: bool,
    asked: usize,
    opens_sysfs: bool,
}

impl Driver {
    /// A driver that is not loaded yet. It will offer these algorithms, as in `comp_algorithm`.
    ///
    /// # Panics
    /// If its files cannot be written.
    #[must_use]
    pub fn new(algorithms: &str) -> Driver {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        create_dir_all(at.join("sysfs/block/zram1")).expect("a folder");
        create_dir_all(at.join("sysfs/class")).expect("a folder");
        let files = [
            ("comp_algorithm", algorithms),
            // A number of a local driver, so that nothing else has it.
            ("dev", "240:1\n"),
            ("disksize", "0\n"),
            ("mem_limit", "0\n"),
            ("reset", ""),
            ("mm_stat", "   8192     4096    12288        0    12288        1        0        0        0\n"),
        ];
        for (name, text) in files {
            fs::write(at.join("sysfs/block/zram1").join(name), text).expect("a file");
        }
        fs::write(at.join("device"), "").expect("a file");
        fs::write(at.join("swaps"), "Filename Type Size Used Priority\n").expect("a file");
        let open = |name: &str| File::open(at.join(name)).expect("it exists");
        let device = File::options().read(true).write(true).open(at.join("device")).expect("it exists");
        let (sysfs, swaps) = (open("sysfs"), open("swaps"));
        Driver {
            sysfs,
            device,
            swaps,
            folder,
            loads: Ok(()),
            swaps_on: Ok(()),
            on: false,
            used: false,
            asked: 0,
            opens_sysfs: false,
        }
    }

    /// A device of another user is in use as swap already.
    ///
    /// # Panics
    /// If its file cannot be written.
    pub fn is_taken(&self) {
        let line = "/dev/zram0 partition 65532 0 100\n";
        let file = File::options().append(true).open(self.folder.path().join("swaps")).expect("it exists");
        file.write_all_at(line.as_bytes(), 0).expect("a file");
    }

    /// What the init has written to a file of the class or of the device.
    ///
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.path().join("sysfs").join(path)).expect("a file of the driver")
    }

    /// The contents of the device.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("device")).expect("the device")
    }

    /// Whether the init has removed the device.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        fs::read(self.folder.path().join("sysfs/class/zram-control/hot_remove"))
            .is_ok_and(|written| written == b"1")
    }

    /// Answers a call, or lets it pass.
    ///
    /// # Panics
    /// If the memory of the init cannot be written.
    pub fn answer(&mut self, call: &Call) -> Verdict {
        match call.number {
            libc::SYS_readlinkat => self.namespace(call),
            libc::SYS_fsopen => {
                self.opens_sysfs = call.text(0) == b"sysfs";
                Verdict::Continue
            }
            libc::SYS_fsmount if self.opens_sysfs => Verdict::Give(self.sysfs.as_raw_fd()),
            libc::SYS_openat => self.open(&call.text(1)),
            libc::SYS_finit_module => self.load(),
            libc::SYS_swapon => self.swap(true),
            libc::SYS_swapoff => self.swap(false),
            _ => Verdict::Continue,
        }
    }

    /// The init is in the initial namespaces, as far as swap is concerned.
    fn namespace(&mut self, call: &Call) -> Verdict {
        let name: &[u8] = match &call.text(1)[..] {
            b"self/ns/pid" if self.asked < EARLIER => {
                self.asked += 1;
                return Verdict::Continue;
            }
            b"self/ns/pid" => b"pid:[4026531836]",
            b"self/ns/user" => b"user:[4026531837]",
            _ => return Verdict::Continue,
        };
        call.put(2, name).expect("the memory of the init");
        Verdict::Return(i64::try_from(name.len()).expect("a few bytes"))
    }

    fn open(&mut self, path: &[u8]) -> Verdict {
        match path {
            b"dev/zram1" => return Verdict::Give(self.device.as_raw_fd()),
            b"swaps" => return Verdict::Give(self.swaps.as_raw_fd()),
            path => self.used |= path.starts_with(b"block/zram1/"),
        }
        Verdict::Continue
    }

    fn load(&self) -> Verdict {
        if let Err(error) = self.loads {
            return Verdict::Fail(error);
        }
        let class = self.folder.path().join("sysfs/class/zram-control");
        create_dir_all(&class).expect("a folder");
        for (name, text) in [("hot_add", "1\n"), ("hot_remove", "")] {
            fs::write(class.join(name), text).expect("a file");
        }
        Verdict::Return(0)
    }

    fn swap(&mut self, on: bool) -> Verdict {
        match self.swaps_on {
            Err(error) if on => Verdict::Fail(error),
            _ => {
                self.on = on;
                Verdict::Return(0)
            }
        }
    }
}

impl Default for Driver {
    fn default() -> Driver {
        Driver::new("lzo-rle [lzo] lz4 zstd\n")
    }
}

/// A root with a driver for the running kernel and this configuration.
#[must_use]
pub fn prepared(fs: Fs, config: &str) -> Prepared {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    prepare(fs, |stage| {
        // One thread, so that the nth call is the same one in every run.
        stage.install(&format!("mode=move\nthreads=1\nonerror=poweroff\n{config}\n"));
        stage.mount(Fs::Tmpfs, "disk/data");
        stage.file("disk/data/file", b"not ours to touch");
        stage.plant(&one_of_each());
        stage.dir(".repot-modules");
        stage.dir(&format!(".repot-modules/{release}"));
        stage.file(&format!(".repot-modules/{release}/zram.order"), b"zram.ko\n");
        stage.file(&format!(".repot-modules/{release}/zram.ko"), b"the test plays it");
    })
}

/// Runs with a driver, while `decide` may answer before it.
///
/// # Panics
/// If the test itself fails.
pub fn with(
    prepared: &Prepared,
    driver: &mut Driver,
    more: Option<i64>,
    decide: &mut dyn FnMut(&Call) -> Option<Verdict>,
) -> (Running, End) {
    let calls = Calls::These(ANSWERED.into_iter().chain(more).collect());
    let mut running = prepared.start(&Setup { calls, ..Setup::default() });
    let end = running.wait_until(DEADLINE, None, &mut |call| match decide(call) {
        Some(verdict) => verdict,
        None if call.program == 1 => driver.answer(call),
        None => Verdict::Continue,
    });
    (running, end)
}

/// Compares everything but the modules, which the init removes, and the root, in which they were.
///
/// # Panics
/// If the test itself fails.
#[must_use]
pub fn examine(prepared: &Prepared, running: &Running) -> Outcome {
    faults::examine(prepared, running, &|tree: &mut Snapshot| {
        tree.retain(|path, _| !path.is_empty() && !path.starts_with(b".repot-modules"));
    })
}

/// Every call from the first look at sysfs until the swap is in use, failing with each error.
///
/// # Panics
/// If a run without a failure does not make a device.
#[must_use]
pub fn points(fs: Fs) -> Vec<Point> {
    let (prepared, mut driver) = (prepared(fs, "zram=64m"), Driver::default());
    let mut running = prepared.start(&Setup { calls: Calls::All, ..Setup::default() });
    let (mut calls, mut first, mut last) = (Vec::new(), None, None);
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        if call.program != 1 {
            return Verdict::Continue;
        }
        let verdict = driver.answer(call);
        if driver.opens_sysfs {
            first.get_or_insert(calls.len());
        }
        calls.push(call.number);
        if call.number == libc::SYS_swapon {
            // And the one that leaves the directory of the device.
            last = Some(calls.len() + 1);
        }
        verdict
    });
    assert_eq!(end, End::Init("ready".into()), "{}", running.log());
    let (Some(first), Some(last)) = (first, last) else { panic!("no device: {}", running.log()) };
    let nth = |at: usize| calls[..at].iter().filter(|&&call| call == calls[at]).count();
    let point = |at: usize| {
        ERRORS.map(|error| Point { fs, call: calls[at], nth: u64::try_from(nth(at)).expect("few"), error })
    };
    // The exit of a thread and getpid cannot fail.
    let can_fail = |at: &usize| ![libc::SYS_exit, libc::SYS_getpid].contains(&calls[*at]);
    (first..last).filter(can_fail).flat_map(point).filter(Point::can_be).collect()
}

/// Runs with one failure and returns the outcome of the move. A device that is neither swap nor removed is
/// wrong.
///
/// # Panics
/// If the test itself fails.
#[must_use]
pub fn run(point: &Point) -> Outcome {
    let outcome = run_once(point);
    // As in the sweep without a driver.
    if matches!(outcome, Outcome::Late | Outcome::NotReached) { run_once(point) } else { outcome }
}

fn run_once(point: &Point) -> Outcome {
    let (prepared, mut driver) = (prepared(point.fs, "zram=64m"), Driver::default());
    let (mut seen, mut failed) = (0, false);
    let (running, end) = with(&prepared, &mut driver, Some(point.call), &mut |call| {
        if call.number != point.call || call.program != 1 {
            return None;
        }
        seen += 1;
        if seen - 1 != point.nth {
            return None;
        }
        failed = true;
        Some(Verdict::Fail(point.error))
    });
    let log = running.log();
    match end {
        _ if !failed => return Outcome::NotReached,
        End::Init(_) => {}
        End::Killed(2) => return Outcome::GaveUp(log),
        End::Late => return Outcome::Late,
        other @ (End::Exited(_) | End::Killed(_) | End::Printed) => {
            return Outcome::Wrong(format!("{other:?}; it printed:\n{log}"));
        }
    }
    let outcome = examine(&prepared, &running);
    match (&outcome, driver.on) {
        (Outcome::Moved, true) if !log.contains("zram: swap of 64.0 MiB") => {
            Outcome::Wrong(format!("the swap is not logged:\n{log}"))
        }
        (Outcome::Moved, false) if !log.contains("zram= ignored: ") => {
            Outcome::Wrong(format!("nothing says why there is no swap:\n{log}"))
        }
        (_, false) if driver.used && !driver.is_removed() => {
            Outcome::Wrong(format!("the device is left:\n{log}"))
        }
        _ => outcome,
    }
}
