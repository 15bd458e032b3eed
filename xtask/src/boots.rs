//! The boots: every `tests/boots/*.toml` is one scenario, run for each kernel, kind of root and mode it names.
//!
//! The guest's probe reports what it found; everything is asserted here, on the host, on that report.

mod compare;
mod expect;
mod hostile;
mod image;
mod payload;
mod scenario;
mod sweep;
mod verdict;

use crate::kernels::{self, Kernel};
use crate::{debian, dist, place, qemu};
use anyhow::{Context, Result};
pub(crate) use compare::{Was, differences};
pub(crate) use hostile::add as plant;
use image::Image;
pub(crate) use image::pack;
use indicatif::{ProgressBar, ProgressStyle};
use scenario::{Case, Scenario};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
pub(crate) use sweep::sweep;

/// For a guest that hangs; on a machine with nothing else to do the slowest boot takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(300);

/// How many boots went well and how many did not.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Score {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

/// What all boots have in common.
struct Bench {
    kernels: BTreeMap<String, Kernel>,
    images: BTreeMap<String, Image>,
}

/// Runs every boot whose name contains `filter`, `jobs` at a time.
pub(crate) fn run(filter: &str, jobs: usize) -> Result<Score> {
    let scenarios = scenario::all()?;
    let cases: Vec<Case> =
        scenarios.iter().flat_map(Scenario::cases).filter(|case| case.name().contains(filter)).collect();
    if cases.is_empty() {
        return Ok(Score::default());
    }
    debian::need(&[debian::QEMU])?;
    debian::need_root("making the boots' images")?;
    let bench = prepare(&cases)?;
    let bar = ProgressBar::new(cases.len() as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} boots {msg}")?);
    let next = AtomicUsize::new(0);
    let score = Mutex::new(Score::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = one(case, &bench);
                    bar.suspend(|| show(case, &outcome));
                    bar.inc(1);
                    if let Ok(mut score) = score.lock() {
                        match outcome {
                            Ok(Outcome { failures, .. }) if failures.is_empty() => score.passed += 1,
                            _ => score.failed += 1,
                        }
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    Ok(score.into_inner().unwrap_or_default())
}

/// Everything that is built or downloaded, before the first machine starts.
fn prepare(cases: &[Case]) -> Result<Bench> {
    let (init, probe) = (dist::init(dist::Arch::X86_64)?, dist::probe()?);
    let of_payload = match cases.iter().any(|case| case.scenario.payload) {
        true => Some(dist::init_payload(dist::Arch::X86_64)?),
        false => None,
    };
    let mut bench = Bench { kernels: BTreeMap::new(), images: BTreeMap::new() };
    for case in cases {
        if !bench.kernels.contains_key(&case.kernel) {
            bench.kernels.insert(case.kernel.clone(), kernels::kernel(&case.kernel)?);
        }
        let name = &case.scenario.name;
        if !bench.images.contains_key(name) {
            let init = of_payload.as_deref().filter(|_| case.scenario.payload).unwrap_or(&init);
            let image =
                Image::build(case.scenario, init, &probe).with_context(|| format!("image of {name}"))?;
            bench.images.insert(name.clone(), image);
        }
    }
    Ok(bench)
}

struct Outcome {
    seconds: f64,
    failures: Vec<String>,
}

fn one(case: &Case, bench: &Bench) -> Result<Outcome> {
    let folder = place::fresh(&format!("boots/runs/{}", case.name()))?;
    let (kernel, image) = (bench.kernels.get(&case.kernel), bench.images.get(&case.scenario.name));
    let (kernel, image) = (kernel.context("no kernel")?, image.context("no image")?);
    let expect = case.expect()?;
    let machine = qemu::Machine {
        kernel,
        initrd: &image.archive,
        append: &case.append(),
        memory_mib: case.scenario.memory,
        cpus: case.scenario.cpus,
        limit: LIMIT,
        stays: expect.stays.as_deref(),
        folder: &folder,
    };
    let mut run = machine.run()?;
    if !run.started() && !run.cut_off {
        // Emulation has its own accidents; they say nothing about what is tested.
        println!("boot {}: the kernel died before it started any program; once more", case.name());
        run = machine.run()?;
    }
    let failures = verdict::failures(case, image, &run)?;
    Ok(Outcome { seconds: run.seconds, failures })
}

fn show(case: &Case, outcome: &Result<Outcome>) {
    match outcome {
        Ok(Outcome { seconds, failures }) if failures.is_empty() => {
            println!("boot {} ... ok ({seconds:.1} s)", case.name())
        }
        Ok(Outcome { seconds, failures }) => {
            println!("boot {} ... FAILED ({seconds:.1} s)", case.name());
            for failure in failures {
                println!("    {failure}");
            }
            println!("    see target/boots/runs/{}", case.name());
        }
        Err(error) => println!("boot {} ... FAILED: {error:#}", case.name()),
    }
}
