//! The plan for each situation, one row each.

mod limits;
mod methods;
mod payload;
mod refused;
mod swap;

use repot::facts::program::Candidate;
use repot::facts::{Capacity, Facts, Memory, RootFs};
use repot::options::{Mode, Options};
use repot::plan::{Method, Plan, plan};
use repot::walk::survey::Survey;

const MIB: u64 = 1 << 20;

/// A stock kernel that has just unpacked a tree of 100 MiB into its initial ramfs, with 1 GiB of memory.
fn facts() -> Facts {
    let mut facts = Facts::default();
    facts.rootfs = RootFs::Ramfs;
    facts.initial = true;
    facts.parentless = true;
    facts.root_mount = 1;
    facts.survey =
        Survey { entries: 5000, directories: 500, bytes: 100 * MIB, largest: 9 * MIB, ..Survey::default() };
    facts.memory = Memory { total: 1024 * MIB, available: 800 * MIB, high: 0 };
    facts.kernel = (6, 12);
    facts.cpus = 2;
    facts.candidates = vec![Candidate { path: b"/sbin/init".to_vec(), why: None }];
    facts
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = facts();
    change(&mut facts);
    facts
}

fn options(change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::default();
    change(&mut options);
    options
}

fn mode(mode: Mode) -> Options {
    options(|options| options.mode = mode)
}

fn tmpfs(facts: &mut Facts) {
    facts.rootfs = RootFs::Tmpfs;
    facts.capacity = Capacity { size: 500 * MIB, free: 400 * MIB, inodes: 128_000, free_inodes: 120_000 };
}

fn disk(facts: &mut Facts) {
    (facts.rootfs, facts.initial, facts.parentless) = (RootFs::Other(0xef53), false, false);
}

fn rehomed(facts: &mut Facts) {
    tmpfs(facts);
    (facts.initial, facts.parentless) = (false, false);
}

fn others(facts: &mut Facts) {
    facts.others = vec!["dropbear[2]".into(), "sh[3]".into()];
}

fn bound(facts: &mut Facts) {
    facts.dependents = vec!["loop0 has its backing file in it".into()];
}

fn itself(facts: &mut Facts) {
    facts.mounts = repot::facts::mountinfo::parse(
        b"1 1 0:2 / / rw - rootfs rootfs rw\n20 1 0:2 /self /self rw - rootfs rootfs rw\n",
    );
}

fn beside(mode: Mode) -> Options {
    options(|options| (options.mode, options.ignore_others) = (mode, true))
}

/// A name, the situation, and the expected method and part of its reason.
type Row<'a> = (&'a str, Facts, Options, Method, &'a str);

fn check(rows: &[Row<'_>]) {
    for (name, facts, options, method, reason) in rows {
        let plan = plan(facts, options).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!(plan.method, *method, "{name}: {}", plan.reason);
        assert!(plan.reason.contains(reason), "{name}: {}", plan.reason);
    }
}

fn planned(facts: &Facts, options: &Options) -> Plan {
    plan(facts, options).expect("a plan")
}
