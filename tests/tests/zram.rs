//! `zram=` in a container: swap belongs to the whole machine, so no device is made and no module loaded.
//! `.repot-modules` goes with every move.
use std::path::Path;

use repot_snapshot::{difference, snapshot};
use repot_tests::intercept::{Calls, Verdict};
use repot_tests::rehome::{AFTER_BOOT, run};
use repot_tests::sandbox::{DEADLINE, End, Setup};
use repot_tests::stage::prepare;
use repot_tests::trees::{Fs, one_of_each};

/// The block devices of this machine.
fn devices() -> Vec<String> {
    let list = Path::new("/sys/block").read_dir().expect("sysfs");
    let mut names: Vec<_> =
        list.map(|item| item.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_container_gets_no_swap() {
    let before = devices();
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            stage.install("mode=move\nzram=64m\n");
            stage.plant(&one_of_each());
        });
        let setup =
            Setup { calls: Calls::These(vec![libc::SYS_finit_module, libc::SYS_swapon]), ..Setup::default() };
        let mut running = prepared.start(&setup);
        let mut made = Vec::new();
        let end = running.wait_until(DEADLINE, None, &mut |call| {
            // The filter asks about every exec.
            if call.number != libc::SYS_execve {
                made.push(call.number);
            }
            Verdict::Continue
        });
        assert_eq!(end, End::Init("ready".into()), "{}", running.log());
        assert!(running.log().contains("zram= ignored: this is a container"), "{}", running.log());
        assert_eq!(made, [0i64; 0], "calls");
        let now = snapshot(running.root()).expect("a snapshot");
        assert_eq!(difference(&prepared.before, &now, AFTER_BOOT), "");
    }
    assert_eq!(devices(), before);
}

#[test]
fn the_modules_of_every_release_are_gone_after_a_move() {
    for fs in Fs::ALL {
        let prepared = prepare(fs, |stage| {
            stage.install("mode=move\n");
            stage.dir(".repot-modules");
            for release in ["6.12.0", "7.0.0"] {
                stage.dir(&format!(".repot-modules/{release}"));
                stage.file(&format!(".repot-modules/{release}/zram.order"), b"zram.ko\n");
            }
        });
        let moved = run(prepared, &Setup::default());
        moved.check_moved();
        assert!(
            !moved.after.keys().any(|path| path.starts_with(b".repot-modules")),
            "{:?}",
            moved.after.keys()
        );
    }
}

/// A link of that name is a file of the user.
#[test]
fn a_link_called_like_the_modules_is_moved() {
    let prepared = prepare(Fs::Ramfs, |stage| {
        stage.install("mode=move\n");
        stage.dir("precious");
        stage.file("precious/file", b"kept");
        stage.link(".repot-modules", "precious");
    });
    run(prepared, &Setup::default()).check();
}
