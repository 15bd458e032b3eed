//! Other processes change the old root while it moves: nothing is lost, nothing is glued together from two
//! files, and an init runs on a whole tree.
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};

use repot_snapshot::{Snapshot, difference, snapshot};
use repot_tests::intercept::{Calls, Verdict};
use repot_tests::rehome::{AFTER_BOOT, run};
use repot_tests::sandbox::{DEADLINE, End, Running, Setup};
use repot_tests::stage::{Prepared, prepare};
use repot_tests::trees::{Fs, one_of_each};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

fn write(dir: impl AsFd, name: &str, contents: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    File::from(file).write_all(contents).map_err(|_| Errno::IO)
}

fn read(dir: impl AsFd, name: &str) -> Option<Vec<u8>> {
    let file = openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut contents = vec![];
    std::io::Read::read_to_end(&mut File::from(file), &mut contents).ok()?;
    Some(contents)
}

/// A tree without the entries below `churn`, which somebody else changes. Where `churn` has moved, it is
/// created again, so the time of the root directory says nothing.
fn quiet(tree: &Snapshot) -> Snapshot {
    let mut quiet = tree.clone();
    quiet.retain(|path, _| !path.starts_with(b"churn"));
    quiet.get_mut(&b""[..]).expect("the root").mtime = (0, 0);
    quiet
}

/// Creates, renames and removes files and directories below `churn` until `stop` is set.
fn churn(root: BorrowedFd<'_>, stop: &AtomicBool) {
    let contents = vec![7; 3 << 20];
    for round in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Whatever fails: the directories move away below us.
        let size = [0, 10, 5000, 3 << 20][round as usize % 4];
        let name = format!("churn/d/{}", round % 7);
        let _ = mkdirat(root, "churn", Mode::RWXU);
        let _ = mkdirat(root, "churn/d", Mode::RWXU);
        let _ = write(root, &name, &contents[..size]);
        let _ = renameat(root, &name, root, format!("churn/{}", round % 3));
        let _ = write(root, "churn/again", &contents[..size]);
        let _ = unlinkat(root, format!("churn/{}", round % 5), AtFlags::empty());
        let _ = unlinkat(root, "churn/d", AtFlags::REMOVEDIR);
    }
}

#[test]
fn a_process_that_creates_and_removes_files_all_the_time() {
    for number in 0..20 {
        let fs = Fs::ALL[number % 2];
        let threads = 1 + number / 2 % 4;
        let prepared = prepare(fs, |stage| {
            stage.install(&format!("mode=move\nothers=ignore\nthreads={threads}\n"));
            stage.plant(&one_of_each());
            for file in 0..300 {
                stage.file(&format!("many/{}/{file}", file % 10), &vec![3; file * 100]);
            }
            stage.file("large", &vec![5; 9 << 20]);
            stage.dir("churn/d");
        });
        let before = quiet(&prepared.before);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| churn(prepared.view.as_fd(), &stop));
            let mut running = prepared.start(&Setup::default());
            let end = running.wait();
            stop.store(true, Ordering::Relaxed);
            let log = running.log();
            assert_eq!(end, End::Init("ready".into()), "{log}");
            let difference =
                difference(&before, &quiet(&snapshot(running.root()).expect("snapshot")), AFTER_BOOT);
            assert!(difference.is_empty(), "{fs:?} {threads}: {difference}\n{log}");
        });
    }
}

/// Runs with `act` called at each `unlinkat` of the init, with the name.
fn with(prepared: &Prepared, mut act: impl FnMut(&[u8]) -> Verdict) -> (Running, End) {
    let setup = Setup { calls: Calls::These(vec![libc::SYS_unlinkat]), ..Setup::default() };
    let mut running = prepared.start(&setup);
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        if call.number == libc::SYS_unlinkat && call.program == 1 {
            act(&call.text(1))
        } else {
            Verdict::Continue
        }
    });
    (running, end)
}

static OLD: [u8; 3 << 20] = [1; 3 << 20];
static LATE: [u8; 2 << 20] = [2; 2 << 20];

/// Sizes of the first and of the second file, with and without an announcement of others.
const CONFLICTS: [(usize, usize, &str); 7] = [
    (10, 20, "ignore"),
    (10, 20, "respect"),
    (20, 10, "respect"),
    (3 << 20, 10, "ignore"),
    (3 << 20, 10, "respect"),
    (3 << 20, 2 << 20, "respect"),
    (10, 2 << 20, "ignore"),
];

/// A tree in which `conflict` moves among many others.
fn conflict(fs: Fs, size: usize, others: &str) -> Prepared {
    prepare(fs, |stage| {
        stage.install(&format!("mode=move\nothers={others}\nthreads=1\n"));
        for file in 0..20 {
            stage.file(&format!("before{file}"), b"b");
        }
        stage.file("conflict", &OLD[..size]);
        for file in 0..20 {
            stage.file(&format!("after{file}"), b"a");
        }
    })
}

/// Another process creates the same name again once it has moved: both files are kept, each whole.
#[test]
fn a_name_that_is_created_again() {
    for fs in Fs::ALL {
        for (size, late, others) in CONFLICTS {
            let prepared = conflict(fs, size, others);
            let mut moved = false;
            let (running, end) = with(&prepared, |name| {
                if moved && statat(&prepared.view, "conflict", AtFlags::empty()).is_err() {
                    write(&prepared.view, "conflict", &LATE[..late]).expect("written");
                    moved = false;
                }
                moved |= name == b"conflict";
                Verdict::Continue
            });
            let log = running.log();
            assert_eq!(end, End::Init("ready".into()), "{log}");
            let root = running.root();
            assert!(read(&root, "conflict").expect("the first") == OLD[..size], "{log}");
            assert!(read(&root, "conflict.repot1").expect("the second") == LATE[..late], "{log}");
            assert!(log.contains("\"/conflict\" exists twice"), "{log}");
        }
    }
}

/// The same, and then the move fails: after the rollback both are in the old root.
#[test]
fn a_name_that_is_created_again_before_a_rollback() {
    for fs in Fs::ALL {
        for (size, late, others) in CONFLICTS {
            let prepared = conflict(fs, size, others);
            let (mut moved, mut failed) = (false, false);
            let (running, end) = with(&prepared, |name| {
                if moved && !failed && statat(&prepared.view, "conflict", AtFlags::empty()).is_err() {
                    write(&prepared.view, "conflict", &LATE[..late]).expect("written");
                    failed = true;
                    return Verdict::Fail(Errno::IO);
                }
                moved |= name == b"conflict";
                Verdict::Continue
            });
            let log = running.log();
            assert_eq!(end, End::Init("ready".into()), "{log}");
            assert!(log.contains("bind: move failed"), "{log}");
            let root = running.root();
            assert!(read(&root, "conflict").expect("the second") == LATE[..late], "{log}");
            assert!(read(&root, "conflict.repot1").expect("the first") == OLD[..size], "{log}");
            for file in 0..20 {
                assert_eq!(read(&root, &format!("before{file}")).as_deref(), Some(&b"b"[..]), "{log}");
                assert_eq!(read(&root, &format!("after{file}")).as_deref(), Some(&b"a"[..]), "{log}");
            }
        }
    }
}

/// A directory that another process removes and fills again after it has moved is merged.
#[test]
fn a_directory_that_is_created_again() {
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            stage.install("mode=move\nothers=ignore\nthreads=1\n");
            stage.file("dir/first", b"first");
            stage.file("other/file", b"other");
        });
        let mut made = false;
        let (running, end) = with(&prepared, |_| {
            if !made && statat(&prepared.view, "dir", AtFlags::empty()).is_err() {
                mkdirat(&prepared.view, "dir", Mode::RWXU).expect("made");
                write(&prepared.view, "dir/second", b"second").expect("written");
                made = true;
            }
            Verdict::Continue
        });
        let log = running.log();
        assert_eq!(end, End::Init("ready".into()), "{log}");
        assert!(made, "{log}");
        assert_eq!(read(running.root(), "dir/first").as_deref(), Some(&b"first"[..]), "{log}");
        assert_eq!(read(running.root(), "dir/second").as_deref(), Some(&b"second"[..]), "{log}");
        assert!(log.contains("old root empty"), "{log}");
    }
}

/// Created after the last pass: where `pivot_root` takes the old root away, it goes along.
#[test]
fn a_file_that_is_created_before_the_switch() {
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            stage.install("mode=move\nothers=ignore\n");
            stage.plant(&one_of_each());
        });
        let setup = Setup { calls: Calls::These(vec![libc::SYS_pivot_root]), ..Setup::default() };
        let mut running = prepared.start(&setup);
        let end = running.wait_until(DEADLINE, None, &mut |call| {
            if call.number == libc::SYS_pivot_root && call.program == 1 {
                mkdirat(&prepared.view, "late", Mode::RWXU).expect("made");
                write(&prepared.view, "late/file", b"late").expect("written");
            }
            Verdict::Continue
        });
        let log = running.log();
        assert_eq!(end, End::Init("ready".into()), "{log}");
        assert_eq!(read(running.root(), "late/file").as_deref(), Some(&b"late"[..]), "{log}");
        let mut after = snapshot(running.root()).expect("snapshot");
        after.retain(|path, _| !path.starts_with(b"late"));
        let difference = difference(&prepared.before, &after, AFTER_BOOT);
        assert!(difference.is_empty(), "{difference}\n{log}");
    }
}

/// Starts a program of this machine in the PID namespace of the sandbox.
fn intruder(running: rustix::process::Pid) -> Child {
    std::thread::spawn(move || {
        let namespace = File::open(format!("/proc/{}/ns/pid", running.as_raw_pid())).expect("its namespace");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ProcessID)).expect("setns");
        Command::new("sleep").arg("1000").spawn().expect("sleep")
    })
    .join()
    .expect("a thread")
}

/// A process that was started after the first look: the tree goes back, and the root is bound.
#[test]
fn a_process_that_starts_during_the_move() {
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            stage.install("mode=move\n");
            stage.plant(&one_of_each());
        });
        let mut started = None;
        let setup = Setup { calls: Calls::These(vec![libc::SYS_unlinkat]), ..Setup::default() };
        let mut running = prepared.start(&setup);
        let pid = running.pid();
        let end = running.wait_until(DEADLINE, None, &mut |call| {
            if call.number == libc::SYS_unlinkat && call.program == 1 && started.is_none() {
                started = Some(intruder(pid));
            }
            Verdict::Continue
        });
        let log = running.log();
        assert_eq!(end, End::Init("ready".into()), "{log}");
        assert!(log.contains("started by somebody else: \"sleep["), "{log}");
        assert!(log.contains("bind: move failed"), "{log}");
        let after = snapshot(running.root()).expect("snapshot");
        let difference = difference(&prepared.before, &after, AFTER_BOOT);
        assert!(difference.is_empty(), "{difference}\n{log}");
        let mut started = started.expect("it was started");
        started.kill().and_then(|()| started.wait()).expect("killed");
    }
}

/// What the kernel itself starts and reads is the last to move.
#[test]
fn programs_of_the_kernel_move_last() {
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            stage.install("mode=move\nthreads=1\n");
            stage.program("usr/sbin/key", repot_tests::programs::helper());
            stage.link("sbin/request-key", "../usr/sbin/key");
            stage.file("lib/modules/6/one.ko", b"module");
            stage.file("lib/firmware/blob", b"firmware");
            for file in 0..20 {
                stage.file(&format!("usr/sbin/other{file}"), b"x");
                stage.file(&format!("lib/other{file}"), b"x");
                stage.file(&format!("z{file}"), b"x");
            }
        });
        let mut order = vec![];
        let (running, end) = with(&prepared, |name| {
            order.push(String::from_utf8_lossy(name).into_owned());
            Verdict::Continue
        });
        assert_eq!(end, End::Init("ready".into()), "{}", running.log());
        let at =
            |name: &str| order.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name}"));
        let others = (0..20).flat_map(|file| [format!("other{file}"), format!("z{file}")]);
        let last = others.map(|name| at(&name)).max().expect("others");
        for late in ["key", "request-key", "one.ko", "blob", "firmware"] {
            assert!(at(late) > last, "{late}: {order:?}");
        }
        let moved = snapshot(running.root()).expect("snapshot");
        let difference = difference(&prepared.before, &moved, AFTER_BOOT);
        assert!(difference.is_empty(), "{difference}\n{}", running.log());
    }
}

/// With few descriptors the init that is asked for still runs.
#[test]
fn few_descriptors() {
    for fs in Fs::ALL {
        for most in [16, 20, 64] {
            let prepared = prepare(fs, |stage| {
                stage.install("mode=move\ninit=/bin/other\n");
                stage.program("bin/other", repot_tests::programs::helper());
                stage.plant(&one_of_each());
            });
            let mut done = run(prepared, &Setup { nofile: Some(most), ..Setup::default() });
            let log = done.running.log();
            assert!(
                log.contains("stay: the move needs 256 descriptors")
                    && log.contains("executing \"/bin/other\""),
                "{log}"
            );
            // The access time of what was executed.
            done.prepared.before.remove(&b"bin/other"[..]);
            done.after.remove(&b"bin/other"[..]);
            done.check_tree();
        }
    }
}

/// Whatever cannot be inspected: the root is bound or left alone, and the init that is asked for runs.
#[test]
fn a_look_that_fails() {
    let calls = [
        (libc::SYS_getdents64, "stay: facts: getdents64"),
        (libc::SYS_fstatfs, "facts: fstatfs"),
        (libc::SYS_statx, "facts: statx"),
        // Without a procfs nobody knows whether this is a container, so the kernel log is written to.
        (libc::SYS_fsopen, ""),
        (libc::SYS_open_tree, ""),
    ];
    for (number, reason) in calls {
        for error in [Errno::NOSYS, Errno::PERM, Errno::MFILE] {
            let mut prepared = prepare(Fs::Tmpfs, |stage| {
                stage.install("mode=move\ninit=/bin/other\n");
                stage.program("bin/other", repot_tests::programs::helper());
                stage.plant(&one_of_each());
            });
            let mut running =
                prepared.start(&Setup { calls: Calls::These(vec![number]), ..Setup::default() });
            let end = running.wait_until(DEADLINE, None, &mut |call| {
                let fails = call.number == number && call.program == 1;
                if fails { Verdict::Fail(error) } else { Verdict::Continue }
            });
            let log = running.log();
            assert_eq!(end, End::Init("ready".into()), "{log}");
            assert!(running.proc_link("exe").ends_with("/bin/other"), "{log}");
            assert!(log.contains(reason), "{reason}: {log}");
            let mut after = snapshot(running.root()).expect("snapshot");
            // The access time of what was executed.
            prepared.before.remove(&b"bin/other"[..]);
            after.remove(&b"bin/other"[..]);
            let difference = difference(&prepared.before, &after, AFTER_BOOT);
            assert!(difference.is_empty(), "{difference}\n{log}");
        }
    }
}
