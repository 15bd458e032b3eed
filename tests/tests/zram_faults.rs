//! Swap in compressed memory, with a driver that the test plays: what is made, and what happens where a call
//! is refused. `cargo xtask faults --zram` tries every call.
use repot_tests::faults::{Outcome, sample};
use repot_tests::sandbox::End;
use repot_tests::trees::Fs;
use repot_tests::zram::{Driver, examine, points, prepared, run, with};
use rustix::io::Errno;

/// Runs with this driver and configuration, checks that the root has moved, and returns the log.
fn moved(driver: &mut Driver, config: &str) -> String {
    let prepared = prepared(Fs::Ramfs, config);
    let (running, end) = with(&prepared, driver, None, &mut |_| None);
    assert_eq!(end, End::Init("ready".into()), "{}", running.log());
    assert_eq!(examine(&prepared, &running), Outcome::Moved, "{}", running.log());
    running.log()
}

#[test]
fn the_device_is_as_configured() {
    let mut driver = Driver::default();
    let log = moved(&mut driver, "zram=64m\nzram.limit=32m");
    assert!(log.contains("zram: swap of 64.0 MiB on /dev/zram1 (zstd), holds 8.0 KiB in 12.0 KiB"), "{log}");
    assert!(driver.on && !driver.is_removed());
    assert_eq!(driver.read("block/zram1/comp_algorithm"), "zstdrle [lzo] lz4 zstd\n");
    assert_eq!(driver.read("block/zram1/disksize"), (64 << 20).to_string());
    assert_eq!(driver.read("block/zram1/mem_limit"), (32 << 20).to_string());
    let header = driver.contents();
    assert_eq!(&header[header.len() - 10..], b"SWAPSPACE2");
}

#[test]
fn without_an_algorithm_that_it_knows_the_device_is_removed() {
    let mut driver = Driver::new("[842] lzjb\n");
    let log = moved(&mut driver, "zram=64m");
    assert!(log.contains("zram= ignored: no algorithm that repot knows"), "{log}");
    assert!(!driver.on && driver.is_removed(), "{log}");
}

#[test]
fn what_swapon_refuses_is_removed() {
    for error in [Errno::PERM, Errno::INVAL, Errno::BUSY, Errno::NOMEM] {
        let mut driver = Driver::default();
        driver.swaps_on = Err(error);
        let log = moved(&mut driver, "zram=64m");
        assert!(log.contains("zram= ignored: swapon \"dev/zram1\": "), "{log}");
        assert!(!driver.on && driver.is_removed(), "{log}");
    }
}

#[test]
fn the_swap_of_another_user_stays_alone() {
    let mut driver = Driver::default();
    driver.is_taken();
    let log = moved(&mut driver, "zram=64m");
    assert!(log.contains("zram= ignored: a zram device is in use as swap already"), "{log}");
    assert!(!driver.on && !driver.used, "{log}");
}

#[test]
fn a_module_that_the_kernel_refuses_is_explained() {
    for (error, cure) in [
        (Errno::KEYREJECTED, "it is not signed for this kernel"),
        (Errno::PERM, "the kernel accepts no modules"),
        (Errno::NOEXEC, "it is not for this kernel"),
        (Errno::NOSYS, "this kernel has no modules"),
    ] {
        let mut driver = Driver::default();
        driver.loads = Err(error);
        let log = moved(&mut driver, "zram=64m");
        assert!(log.contains("zram= ignored: finit_module \".repot-modules/"), "{log}");
        assert!(log.contains(cure), "{log}");
        assert!(!driver.used, "{log}");
    }
}

#[test]
fn any_call_may_fail() {
    for fs in Fs::ALL {
        let sample = sample(&points(fs));
        assert!(sample.len() >= 80, "only {} points", sample.len());
        let results: Vec<_> = sample.iter().map(|point| (point, run(point))).collect();
        let bad: Vec<_> = results.iter().filter(|(_, outcome)| outcome.is_bad()).collect();
        assert!(bad.is_empty(), "{bad:#?}");
        let count = |what: &Outcome| results.iter().filter(|(_, outcome)| outcome == what).count();
        let (moved, missed) = (count(&Outcome::Moved), count(&Outcome::NotReached));
        assert!(moved > 40 && missed == 0, "{fs:?}: {moved} moved, {missed} not reached");
    }
}
