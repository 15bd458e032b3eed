//! Compares the account of a boot with what its scenario expects.

use crate::case::Case;
use crate::expect::{AsBefore, Expect, Like, Mounts, Works};
use crate::image::Image;
use crate::{differences, last_lines, payload_image, shorten};
use anyhow::Result;
use repot_harness::qemu::Run;
use repot_probe::account::{Account, Line, Mount};
use repot_snapshot::{Kind, Snapshot};
use std::fmt::Debug;

/// Everything that is not as expected.
pub(crate) fn failures(case: &Case, image: &Image, run: &Run) -> Result<Vec<String>> {
    let expect = case.expect()?;
    let mut failures = Failures(Vec::new());
    if run.cut_off {
        failures.say(format!("the guest did not end; its last lines: {}", last_lines(&run.console)));
        return Ok(failures.0);
    }
    if expect.stays.is_some() && !run.stayed {
        failures.say("the guest ended by itself".to_owned());
    }
    let (mut before, mut after) = (None, None);
    for line in run.report.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Before(account)) => before = Some(account),
            Ok(Line::After(account)) => after = Some(account),
            Ok(Line::Broken(what)) => failures.say(format!("the probe failed: {what}")),
            Err(error) => failures.say(format!("the report is corrupt: {error}")),
        }
    }
    match (&expect.console, after) {
        (Some(words), None) => {
            for words in words.iter().filter(|words| !run.console.contains(words.as_str())) {
                failures.say(format!(
                    "the console lacks {words:?}; its last lines: {}",
                    last_lines(&run.console)
                ));
            }
        }
        (Some(_), Some(_)) => failures.say("an init was executed, but none was expected".to_owned()),
        (None, None) => {
            failures.say(format!("the probe sent no report; the last lines: {}", last_lines(&run.console)))
        }
        (None, Some(after)) => failures.account(case, &expect, image, before.as_deref(), &after),
    }
    // Where a boot can't be had again, its decision is in what the init said.
    if !failures.0.is_empty() {
        failures.0.extend(said(&run.console).map(|line| format!("console: {line}")));
    }
    Ok(failures.0)
}

/// What repot said on the console.
pub(crate) fn said(console: &str) -> impl Iterator<Item = &str> {
    console.lines().map(str::trim).filter(|line| line.contains("repot: "))
}

struct Failures(Vec<String>);

impl Failures {
    fn say(&mut self, what: String) {
        self.0.push(what);
    }

    fn same<T: PartialEq + Debug>(&mut self, what: &str, wanted: &Option<T>, seen: T) {
        if let Some(wanted) = wanted
            && *wanted != seen
        {
            self.say(format!("{what}: expected {wanted:?}, found {seen:?}"));
        }
    }

    fn works(&mut self, what: &str, wanted: Option<&Works>, case: &Case, seen: bool, detail: &dyn Debug) {
        if let Some(wanted) = wanted
            && wanted.on(&case.kernel) != seen
        {
            self.say(format!("{what}: expected {}, found {detail:?}", wanted.on(&case.kernel)));
        }
    }

    fn account(
        &mut self,
        case: &Case,
        expect: &Expect,
        image: &Image,
        before: Option<&Account>,
        after: &Account,
    ) {
        let process = &after.process;
        self.same("pid", &Some(1), process.pid);
        let root = after.mounts.iter().find(|mount| mount.point == "/");
        self.same("type of /", &expect.root, root.map(|root| root.kind.clone()).unwrap_or_default());
        let options = root.map(|root| root.super_options.as_str()).unwrap_or_default();
        for option in expect.options.iter().filter(|option| !options.split(',').any(|one| one == *option)) {
            self.say(format!("/ lacks the option {option}: {options}"));
        }
        let statfs = expect.statfs.as_ref().map(|kind| if kind == "same" { &case.rootfstype } else { kind });
        self.same("statfs of /", &statfs, &after.statfs.kind);
        self.works(
            "pivot_root",
            expect.pivot_root.as_ref(),
            case,
            after.pivot_root == "ok",
            &after.pivot_root,
        );
        self.works("user namespace", expect.userns.as_ref(), case, after.userns == "ok", &after.userns);
        self.same("argv", &expect.argv, process.argv.clone());
        self.same("environ", &expect.environ, process.environ.clone());
        self.same("cwd", &expect.cwd, process.cwd.clone());
        self.same("umask", &expect.umask, format!("{:03o}", process.umask));
        let descriptors = process.descriptors.iter().map(|(number, target)| format!("{number} {target}"));
        self.same("descriptors", &expect.descriptors, descriptors.collect());
        if expect.signals_default
            && process.signals.values().any(|set| set.bytes().any(|digit| digit != b'0'))
        {
            self.say(format!("signals: {:?}", process.signals));
        }
        let devices = after.swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        self.same("swaps", &expect.swaps, devices.map(str::to_owned).collect());
        self.same("pages locked in memory", &expect.locked, after.locked_pages > 0);
        self.log(expect, after);
        self.memory(expect, after);
        self.limits(expect, after);
        for (name, wanted) in &expect.settings {
            self.same(name, &Some(Some(wanted)), after.settings.get(name));
        }
        self.mounts(expect, before, after);
        self.tree(case, expect, image, before, after);
        if expect.old_root_gone.is_some() && before.is_none() {
            self.say("the step `report` is missing, so the old root is not known".to_owned());
        }
        if let (Some(wanted), Some(before)) = (&expect.old_root_gone, before) {
            let minor = before
                .mounts
                .iter()
                .find(|mount| mount.point == "/")
                .and_then(|root| root.device.split_once(':')?.1.parse::<u32>().ok());
            let gone = minor.is_some_and(|minor| after.free_devices.contains(&minor));
            self.works("old root gone", Some(wanted), case, gone, &(minor, &after.free_devices));
        }
    }

    fn log(&mut self, expect: &Expect, after: &Account) {
        for words in
            expect.log.iter().filter(|words| !after.log.iter().any(|line| line.contains(words.as_str())))
        {
            self.say(format!("the log lacks {words:?}: {:#?}", after.log));
        }
        for words in expect
            .log_without
            .iter()
            .filter(|words| after.log.iter().any(|line| line.contains(words.as_str())))
        {
            self.say(format!("the log must not contain {words:?}: {:#?}", after.log));
        }
    }

    fn memory(&mut self, expect: &Expect, after: &Account) {
        let of = |key: &str| after.memory.get(key).copied().unwrap_or(0);
        if let Some(limit) = expect.memory_over_tree {
            // A tree on ramfs counts as Unevictable, on tmpfs as Shmem. It must be in memory once.
            let (held, tree) = (of("Shmem") + of("Unevictable"), tree_kib(&after.tree));
            // The limit is for pages of 4 KiB: a symlink on ramfs takes one, for instance.
            if held > tree + limit * (page(after) / 4096) {
                self.say(format!("{held} KiB of page cache for a tree of {tree} KiB"));
            }
        }
    }

    fn limits(&mut self, expect: &Expect, after: &Account) {
        let size = after.statfs.blocks * after.statfs.block / 1024;
        self.same("size of / in KiB", &expect.size_kib, size);
        self.same("inodes of /", &expect.inodes, after.statfs.inodes);
        if let Some(percent) = expect.size_percent {
            let total = after.memory.get("MemTotal").copied().unwrap_or(0);
            // A kernel that knows the option counts the memory of its own init too.
            if (size * 100).abs_diff(total * percent) > total {
                self.say(format!("size of /: expected {percent} % of {total} KiB, found {size} KiB"));
            }
        }
    }

    fn mounts(&mut self, expect: &Expect, before: Option<&Account>, after: &Account) {
        let brief = |mounts: &[Mount]| -> Vec<String> {
            mounts.iter().map(|mount| format!("{} {}", mount.point, mount.kind)).collect()
        };
        match (&expect.mounts, before) {
            (None, _) => {}
            (Some(Mounts::These(wanted)), _) => {
                self.same("mounts", &Some(wanted.clone()), brief(&after.mounts))
            }
            (Some(Mounts::Like(AsBefore::Before)), None) => {
                self.say("the step `report` is missing, so there are no mounts to compare with".to_owned())
            }
            (Some(Mounts::Like(AsBefore::Before)), Some(before)) => {
                // Those that were made again are listed last. What is mounted on what is part of each line.
                let told = |mounts: &[Mount]| -> Vec<String> {
                    let below = mounts.iter().filter(|mount| mount.point != "/");
                    let mut lines: Vec<String> = below.map(|mount| told(mount, mounts)).collect();
                    lines.sort();
                    lines
                };
                self.same("mounts", &Some(told(&before.mounts)), told(&after.mounts));
            }
        }
    }

    fn tree(
        &mut self,
        case: &Case,
        expect: &Expect,
        image: &Image,
        before: Option<&Account>,
        after: &Account,
    ) {
        let executed: Vec<&str> = case.scenario.executed().collect();
        let found = match (expect.tree, before) {
            (None, _) => return,
            (Some(Like::Packed), _) if case.scenario.payload => {
                let packed = on_pages(payload_image::compared(&image.tree), page(after));
                differences(&packed, &payload_image::compared(&after.tree), &executed)
            }
            (Some(Like::Packed), _) => {
                differences(&on_pages(packed(case, image), page(after)), &after.tree, &executed)
            }
            (Some(Like::Before), Some(before)) => differences(&before.tree, &after.tree, &executed),
            (Some(Like::Before), None) => {
                vec!["the step `report` is missing, so there is no tree to compare with".to_owned()]
            }
        };
        self.0.extend(shorten(&found));
    }
}

/// The page size of the guest: the block size of a ramfs and of a tmpfs.
fn page(account: &Account) -> u64 {
    account.statfs.block.max(4096)
}

/// A tree whose files take whole pages of this size.
fn on_pages(mut tree: Snapshot, page: u64) -> Snapshot {
    for entry in tree.values_mut().filter(|entry| entry.kind == Kind::File) {
        entry.blocks = entry.size.div_ceil(page) * (page / 512);
    }
    tree
}

/// The tree that must arrive. The image's own init gets its name back.
fn packed(case: &Case, image: &Image) -> Snapshot {
    let mut tree = image.tree.clone();
    let scenario = &case.scenario;
    if scenario.config.as_deref() == Some("chain=/init.real")
        && !scenario.append.contains("repot.init=")
        && let Some(init) = tree.remove(&b"init.real"[..])
    {
        tree.insert(b"init".to_vec(), init);
    }
    tree
}

/// The properties of a mount that must not change. IDs may change, and a bind mount of the root's own file
/// system is on another device with another type afterwards.
fn told(mount: &Mount, all: &[Mount]) -> String {
    let top = all.iter().find(|other| other.point == "/");
    let own = top.is_none_or(|top| top.device != mount.device);
    let parent = all.iter().find(|other| other.id == mount.parent).map_or("", |parent| parent.point.as_str());
    let system = if own {
        format!("{} {} {}", mount.kind, mount.source, mount.super_options)
    } else {
        "of /".to_owned()
    };
    let Mount { point, root, options, propagation, .. } = mount;
    format!("{point} on {parent} from {root} {options} {propagation} {system}")
}

/// The memory that the files of a tree take.
fn tree_kib(tree: &Snapshot) -> u64 {
    let first = |(path, entry): &(&Vec<u8>, &repot_snapshot::Entry)| {
        entry.kind == Kind::File && entry.linked.as_ref().is_none_or(|linked| linked == *path)
    };
    tree.iter().filter(first).map(|(_, entry)| entry.blocks / 2).sum()
}
