//! The same for the calls that make swap in compressed memory.

use anyhow::Result;
use repot_tests::faults::Outcome;
use repot_tests::trees::Fs;
use repot_tests::zram::{points, run};

use super::{Choice, finish, summary};

pub(crate) fn sweep(choice: &Choice) -> Result<()> {
    let points = [Fs::Ramfs, Fs::Tmpfs].into_iter().flat_map(points);
    let results = super::run(choice, points, &run, Outcome::is_bad)?;
    finish(choice, "docs/faults-zram.md", TEXT, &results, &summary(&results), Outcome::is_bad)
}

const TEXT: &str = "# Fault injection: swap in compressed memory\n\n`cargo xtask faults --zram` runs the static init as PID 1 of a \
     private namespace with `zram=64m`, on a ramfs and on a tmpfs, with a module for the running kernel. The test plays the \
     driver: it answers `finit_module`, `swapon` and `swapoff`, and it replaces sysfs by files of its own. Each system call \
     from the first look at sysfs to the use of the swap fails once, with each of five errors. Each run must end within ten \
     seconds, with an init on a complete tree and every mount in place, and with the device in use as swap or removed. The \
     table counts the outcomes of the move.";
