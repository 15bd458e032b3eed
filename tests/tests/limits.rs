//! Large trees: few descriptors and little memory, whatever the size.
use repot_tests::intercept::Calls;
use repot_tests::rehome::{Rehomed, run};
use repot_tests::sandbox::Setup;
use repot_tests::stage::{Stage, prepare};
use repot_tests::trees::{Fs, crowd, hostile, shaft};

/// Moves with at most 256 descriptors, and returns the mover's peak memory in KiB.
fn moved(fs: Fs, config: &str, build: impl FnOnce(&Stage) + Send) -> (Rehomed, u64) {
    let prepared = prepare(fs, |stage| {
        stage.install(&format!("mode=move\n{config}"));
        build(stage);
    });
    // Interception measures the peak. Only executions are intercepted here.
    let setup = Setup { nofile: Some(256), calls: Calls::These(vec![]), ..Setup::default() };
    let moved = run(prepared, &setup);
    moved.check();
    let peak = moved.running.peak().expect("measured at the execution of the real init");
    (moved, peak)
}

/// The fixed part: threads, buffers, the program itself.
const SMALL: u64 = 4 << 10;

#[test]
fn a_hundred_thousand_entries_in_one_directory() {
    for fs in Fs::ALL {
        let (moved, peak) = moved(fs, "", |stage| crowd(stage.root(), 100_000));
        assert!(moved.after.len() > 100_000);
        assert!(peak < SMALL, "{peak} KiB from {fs:?}");
    }
}

#[test]
fn four_thousand_levels() {
    for threads in ["threads=1\n", "threads=8\n"] {
        let (moved, peak) = moved(Fs::Tmpfs, threads, |stage| shaft(stage.root(), 4000));
        assert!(moved.after.keys().any(|path| path.len() > 20_000));
        assert!(peak < SMALL, "{peak} KiB with {threads}");
    }
}

#[test]
fn the_maximum_number_of_threads() {
    for fs in Fs::ALL {
        moved(fs, "threads=8\n", |stage| stage.plant(&hostile()));
    }
}

/// Many directories in one: their names must not all be kept in memory.
#[test]
fn twenty_thousand_directories_in_one() {
    let (_, peak) = moved(Fs::Ramfs, "", |stage| {
        for number in 0..20_000 {
            stage.dir(&format!("wide/a directory with a name of some length, number {number}"));
        }
    });
    assert!(peak < SMALL, "{peak} KiB");
}

/// The only memory that may grow with the tree: inodes with hard links.
#[test]
fn ten_thousand_inodes_with_two_names() {
    let (_, peak) = moved(Fs::Tmpfs, "", |stage| {
        stage.dir("first");
        stage.dir("second");
        for number in 0..10_000 {
            stage.file(&format!("first/{number}"), b"");
            std::fs::hard_link(
                stage.path(&format!("first/{number}")),
                stage.path(&format!("second/{number}")),
            )
            .expect("linked");
        }
    });
    assert!(peak < 2 * SMALL, "{peak} KiB");
}
