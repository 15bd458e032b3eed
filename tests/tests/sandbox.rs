//! The sandbox itself, with the helper in place of the init under test.
use std::time::Duration;

use repot_snapshot::{difference, snapshot};
use repot_tests::intercept::{Calls, Verdict};
use repot_tests::mounts::carried;
use repot_tests::namespace::host_mount_table;
use repot_tests::programs;
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::stage::{Prepared, prepare};
use repot_tests::trees::{Fs, Plant, hostile};
use rustix::io::Errno;

fn helper_alone(fs: Fs, tree: &[Plant]) -> Prepared {
    prepare(fs, |stage| {
        stage.program("init", programs::helper());
        stage.plant(tree);
        stage.mount(Fs::Tmpfs, "data/disk");
        stage.mount(Fs::Ramfs, "data/disk/deeper");
        stage.file("data/disk/deeper/file", b"kept");
    })
}

#[test]
fn the_helper_is_process_1_on_the_prepared_root_and_the_machine_is_untouched() {
    let host = host_mount_table();
    for fs in Fs::ALL {
        let prepared = helper_alone(fs, &hostile());
        let mut running = prepared.start(&Setup::default());
        assert_eq!(running.wait(), End::Init("ready".into()), "{}", running.log());
        let status = String::from_utf8(running.proc("status")).expect("text");
        assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");
        assert_eq!(running.proc("cmdline"), b"/init\0");
        assert_eq!(carried(&prepared.mounts), carried(&running.mounts()));
        let said = difference(
            &prepared.before,
            &snapshot(running.root()).expect("snapshot"),
            repot_tests::rehome::AFTER_BOOT,
        );
        assert_eq!(said, "");
        assert_eq!(host, host_mount_table());
    }
    assert_eq!(host, host_mount_table());
}

#[test]
fn calls_can_be_counted_and_made_to_fail() {
    let setup = Setup { calls: Calls::All, ..Setup::default() };
    let mut seen = vec![];
    let mut running = helper_alone(Fs::Tmpfs, &[]).start(&setup);
    let end = running.wait_until(DEADLINE, None, &mut |call| {
        seen.push(call.number);
        Verdict::Continue
    });
    assert_eq!(end, End::Init("ready".into()));
    assert!(seen.contains(&libc::SYS_socket) && seen.contains(&libc::SYS_connect), "{seen:?}");

    let setup = Setup { calls: Calls::These(vec![libc::SYS_socket, libc::SYS_write]), ..Setup::default() };
    let mut running = helper_alone(Fs::Tmpfs, &[]).start(&setup);
    let end = running.wait_until(DEADLINE, None, &mut |call| match call.number {
        libc::SYS_socket => Verdict::Fail(Errno::NOMEM),
        _ => Verdict::Continue,
    });
    assert_eq!(end, End::Exited(77));
    assert!(running.log().contains("os error 12"), "{}", running.log());

    let mut running = helper_alone(Fs::Tmpfs, &[]).start(&setup);
    assert_eq!(running.wait_until(DEADLINE, None, &mut |_| Verdict::Kill), End::Killed(9));
}

#[test]
fn a_program_that_does_not_report_is_killed_after_the_deadline() {
    let mut running = helper_alone(Fs::Ramfs, &[]).start(&Setup::default());
    assert_eq!(running.wait_until(Duration::ZERO, None, &mut |_| Verdict::Continue), End::Late);
}

#[test]
fn a_failed_execution_is_reported() {
    let prepared = prepare(Fs::Tmpfs, |_| ());
    let started =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(prepared.start(&Setup::default()))));
    let said = started.expect_err("there is no /init").downcast::<String>().expect("a message");
    assert!(said.contains("execve: No such file or directory"), "{said}");
}
