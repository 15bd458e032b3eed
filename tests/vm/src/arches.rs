//! The boots of other architectures: a fixed set of the scenarios, each on the kernels that Debian has for
//! it.
//!
//! They need QEMU, a cross compiler and a kernel for each, so the tests run a sample of two architectures,
//! one with another byte order; `cargo xtask boots --arch ARCH` runs all.

use crate::Boot;
use crate::case::Case;
use crate::scenario;
use anyhow::{Context, Result};
use repot_harness::arch::Arch;
use repot_harness::{build, emulator, kernels};

/// A scenario with the roots and modes that are booted.
struct Booted {
    scenario: &'static str,
    rootfstype: &'static [&'static str],
    mode: &'static [&'static str],
    /// The end of the name of the kernels that boot it.
    only: &'static str,
}

const BOTH: &[&str] = &["ramfs", "tmpfs"];

/// What every architecture boots.
const SET: [Booted; 6] = [
    Booted { scenario: "matrix", rootfstype: BOTH, mode: &["move", "bind"], only: "" },
    Booted { scenario: "payload", rootfstype: BOTH, mode: &["none"], only: "" },
    Booted { scenario: "payload-size", rootfstype: &["tmpfs"], mode: &["none"], only: "" },
    Booted { scenario: "attributes", rootfstype: &["tmpfs"], mode: &["move"], only: "" },
    Booted { scenario: "wide", rootfstype: BOTH, mode: &["move"], only: "" },
    // On 64 KiB pages, the memory that is left is 80 pages.
    Booted { scenario: "memory", rootfstype: BOTH, mode: &["move"], only: "-64k" },
];

/// What the tests run, too.
const SAMPLE: [(Arch, &str); 2] =
    [(Arch::Aarch64, "payload/6.12-16k-ramfs-none"), (Arch::S390x, "matrix/6.12-ramfs-move")];

/// The boots of all architectures but x86_64, which has its own.
pub(crate) fn boots() -> Result<Vec<Boot>> {
    let mut boots = Vec::new();
    for arch in Arch::ALL.into_iter().filter(|arch| *arch != Arch::X86_64) {
        for series in kernels::series_of(arch) {
            for booted in SET.iter().filter(|booted| series.ends_with(booted.only)) {
                for case in cases(booted, arch, series)? {
                    boots.push(boot(case));
                }
            }
        }
    }
    Ok(boots)
}

fn cases(booted: &Booted, arch: Arch, series: &str) -> Result<Vec<Case>> {
    let found = scenario::all()?.iter().find(|scenario| scenario.name == booted.scenario);
    let scenario = found.with_context(|| format!("no scenario {}", booted.scenario))?;
    let pairs = booted.rootfstype.iter().flat_map(|root| booted.mode.iter().map(move |mode| (root, mode)));
    Ok(pairs
        .map(|(root, mode)| Case {
            scenario,
            arch,
            kernel: series.to_owned(),
            rootfstype: (*root).to_owned(),
            mode: (*mode).to_owned(),
        })
        .collect())
}

fn boot(case: Case) -> Boot {
    let name = case.name();
    let sampled = SAMPLE.iter().any(|(arch, wanted)| *arch == case.arch && name.ends_with(wanted));
    let run = move || match ready(&case) {
        Err(why) if std::env::var_os("REPOT_ALL_BOOTS").is_none() => {
            // The mirror may lack an architecture; whoever asks for it by --arch gets the error.
            println!("{}: skipped: {why:#}", case.name());
            Ok(())
        }
        ready => ready.and_then(|()| case.boot()),
    };
    Boot { name, long: !sampled, run: Box::new(run) }
}

/// Installs what the boot needs: QEMU, the compilers, the kernel.
fn ready(case: &Case) -> Result<()> {
    emulator::need(case.arch)?;
    kernels::kernel_of(case.arch, &case.kernel)?;
    build::ready(case.arch)
}
