//! One boot of a scenario: the image on one kernel, with one type of root, in one mode.

use crate::expect::Expect;
use crate::image::Image;
use crate::scenario::{self, Scenario};
use crate::{LIMIT, fail_if_any, secret, verdict, with_second_try};
use anyhow::{Context, Result};
use repot_harness::arch::Arch;
use repot_harness::qemu::Machine;
use repot_harness::{emulator, kernels, place};

/// One boot.
pub(crate) struct Case {
    pub(crate) scenario: &'static Scenario,
    pub(crate) arch: Arch,
    pub(crate) kernel: String,
    pub(crate) rootfstype: String,
    pub(crate) mode: String,
}

/// The memory in MiB of machines that are not PCs. With more than 896, a 32-bit PC has high memory.
const OTHERS: u32 = 1024;

/// The boots of all scenarios. All expectations are parsed too, so that a typo fails before the first boot.
pub(crate) fn all() -> Result<Vec<Case>> {
    let cases: Vec<Case> = scenario::all()?.iter().flat_map(Case::of).collect();
    cases.iter().try_for_each(|case| case.expect().map(drop))?;
    Ok(cases)
}

impl Case {
    /// Each boot of a scenario.
    fn of(scenario: &'static Scenario) -> Vec<Case> {
        let mut cases = Vec::new();
        for kernel in &scenario.kernels {
            for rootfstype in &scenario.rootfstype {
                for mode in &scenario.mode {
                    let (kernel, rootfstype, mode) = (kernel.clone(), rootfstype.clone(), mode.clone());
                    cases.push(Case { scenario, arch: Arch::X86_64, kernel, rootfstype, mode });
                }
            }
        }
        cases
    }

    /// What the filter matches.
    pub(crate) fn name(&self) -> String {
        let name = format!("{}/{}-{}-{}", self.scenario.name, self.kernel, self.rootfstype, self.mode);
        if self.arch == Arch::X86_64 { name } else { format!("arch/{}/{name}", self.arch.name()) }
    }

    /// Boots and compares.
    pub(crate) fn boot(&self) -> Result<()> {
        emulator::need(self.arch)?;
        let kernel = kernels::kernel_of(self.arch, &self.kernel)?;
        let image = self.scenario.image(self.arch)?;
        let folder = place::fresh(&format!("boots/runs/{}", self.name()))?;
        let expect = self.expect()?;
        let memory = expect.markers.is_some().then(|| folder.join("memory"));
        let append = self.append(image)?;
        let machine = Machine {
            kernel: &kernel,
            initrd: &image.archive,
            append: &append,
            memory_mib: self.memory(),
            cpus: self.scenario.cpus,
            limit: LIMIT,
            stays: expect.stays.as_deref(),
            memory: memory.as_deref(),
            folder: &folder,
        };
        let run = with_second_try(|| machine.run())?;
        let mut failures = verdict::failures(self, image, &run)?;
        if let (Some(memory), Some((least, most))) = (memory, expect.markers) {
            let found = secret::count(&memory)?;
            std::fs::remove_file(&memory).context("the memory of the guest")?;
            if !(least..=most).contains(&found) {
                let all = secret::MARKERS;
                failures.push(format!("{found} of {all} markers are in memory, expected {least} to {most}"));
            }
        }
        fail_if_any(&failures, &folder)
    }

    /// The memory of the machine in MiB: scenarios are for kernels of PCs, which are among the smallest.
    fn memory(&self) -> u32 {
        if self.arch == Arch::X86_64 { self.scenario.memory } else { self.scenario.memory.max(OTHERS) }
    }

    /// Its part of the kernel command line.
    fn append(&self, image: &Image) -> Result<String> {
        let mode = if self.mode == "none" { String::new() } else { format!("repot.mode={} ", self.mode) };
        let line = format!("rootfstype={} {mode}{}", self.rootfstype, self.scenario.append);
        if !line.contains("{digest}") {
            return Ok(line);
        }
        Ok(line.replace("{digest}", image.digest.as_deref().context("{digest} needs a payload")?))
    }

    /// What is expected in this mode.
    pub(crate) fn expect(&self) -> Result<Expect> {
        let mut all = self.scenario.expect.clone();
        let mut own = toml::Table::new();
        for mode in ["none", "auto", "move", "bind", "stay"] {
            let table = all.remove(mode);
            if mode == self.mode {
                own = table.and_then(|value| value.as_table().cloned()).unwrap_or_default();
            }
        }
        all.extend(own);
        all.try_into().with_context(|| format!("tests/vm/boots/{}.toml: expect", self.scenario.name))
    }
}
